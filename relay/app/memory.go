package app

import (
	"context"

	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// backlogMemory is the queue's part of the memory that clients use as well.
func (p *parts) backlogMemory() deliver.Memory {
	return backlogMemory{p.memory.Share(), p.memory.Most(budget.Reading)}
}

type backlogMemory struct {
	*budget.Share
	most int64
}

// Hold is content with half of all there is: a mail that was taken when there
// was more, or whose text is large, was promised all the same.
func (m backlogMemory) Hold(ctx context.Context, n int64) error {
	return m.Share.Hold(ctx, budget.Backlog, min(n, m.most))
}
