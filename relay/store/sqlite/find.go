package sqlite

import (
	"context"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// Find implements history.Store.
func (s *Records) Find(ctx context.Context, q history.Query) (found []history.Mail, cursor string, err error) {
	text, args, err := dialect().Find(mailFields+", r.addr, r.named, r.state, r.ended, r.api_id, '', r.key", q)
	if err != nil {
		return nil, "", err
	}
	err = s.read(ctx, func(c *conn) error {
		key := ""
		err := c.Each(func(r row) error {
			m, err := mailOf(r[:8])
			if err != nil {
				return err
			}
			one, err := recipientOf(r[8:14])
			m.Recipients = []history.Recipient{one}
			found, key = append(found, m), r.Text(14)
			return err
		}, text, args...)
		if err != nil {
			return err
		}
		for i := range found {
			r := &found[i].Recipients[0]
			if err := addEvents(c, r); err != nil {
				return err
			}
			r.Steps = nil
		}
		if n := len(found); n == stored.FindLimit(q) {
			cursor = stored.FindCursor(found[n-1], key)
		}
		return nil
	})
	return found, cursor, err
}
