package admin

import (
	"cmp"
	"context"
	"iter"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/history"
)

// History is what an operator can ask about what became of mail. Like Admin it
// has two implementations: LocalHistory and Client.
type History interface {
	// Find lists recipients of mails, those that came last first.
	Find(ctx context.Context, q history.Query) (Found, error)

	// Trace returns everything that is known of one mail. q.Name is its queue id
	// or the beginning of that, its Message-ID, the API's message_id, or the
	// address of its sender or of a recipient. When several mails have that name
	// and match the rest of q, it lists up to q.Limit of them instead. It fails
	// with queue.ErrNotFound when there is none.
	Trace(ctx context.Context, q history.Query) (Traced, error)

	// Forget erases what is stored about an address.
	Forget(ctx context.Context, r ForgetRequest) (Forgotten, error)
}

// AllHistory lists everything that matches, page by page. An error is the last
// thing it yields.
func AllHistory(ctx context.Context, h History, q history.Query) iter.Seq2[history.Mail, error] {
	q.Limit = cmp.Or(q.Limit, MaxPage)
	return pages(q.Cursor, func(cursor string) ([]history.Mail, string, error) {
		q.Cursor = cursor
		page, err := h.Find(ctx, q)
		return page.Entries, page.Cursor, err
	})
}

// Found is one page of a list.
type Found struct {
	Entries []history.Mail `json:"entries"`          // each with the one recipient it is about
	Cursor  string         `json:"cursor,omitempty"` // go on with it; "" at the end
}

// Traced is one mail, or those that a name could mean.
type Traced struct {
	Mail *history.Mail `json:"mail,omitempty"`
	// Queue is the mail as the queue has it now, if it does.
	Queue *Mail `json:"queue,omitempty"`

	Matches []history.Mail `json:"matches,omitempty"` // newest first, each with one recipient
	More    bool           `json:"more,omitempty"`    // there are more than those
}

// Settled reports whether nothing is left for this relay to do.
func (t Traced) Settled() bool {
	if t.Mail == nil {
		return false
	}
	for _, r := range t.Mail.Recipients {
		if r.State == history.Waiting {
			return false
		}
	}
	return true
}

// ForgetRequest names an address.
type ForgetRequest struct {
	Address string `json:"address"`
	// Suppressions has it taken off the list as well, so that it can be written
	// to again.
	Suppressions bool `json:"suppressions,omitempty"`
}

// Forgotten says what was erased, and what was not.
type Forgotten struct {
	history.Forgotten
	// Suppressed: the address was on the list, and is not any more.
	Suppressed bool `json:"suppressed"`
	// Queued are mails in the queue that the address sent or is to get. The
	// queue has them until they end; of what becomes of them nothing is
	// recorded any more.
	Queued []QueuedMail `json:"queued"`
}

// QueuedMail is a mail that the queue has.
type QueuedMail struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // of the recipient, or of the first of the sender's
	Received time.Time `json:"received"`
}
