package admin

import (
	"cmp"
	"context"
	"iter"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/history"
)

// History says what became of mail. Like Admin it has two implementations: LocalHistory
// and Client.
type History interface {
	// Find returns one page of recipients, the newest first.
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
	Entries []history.Mail `json:"entries"`          // each has one recipient
	Cursor  string         `json:"cursor,omitempty"` // leads to the next page; "" at the end
}

// Traced is one mail, or the mails that a name can mean.
type Traced struct {
	Mail *history.Mail `json:"mail,omitempty"`
	// Queue is the same mail in the queue, if it is there.
	Queue *Mail `json:"queue,omitempty"`

	Matches []history.Mail `json:"matches,omitempty"` // newest first, each with one recipient
	More    bool           `json:"more,omitempty"`    // there are more
}

// Settled reports whether the relay is done with the mail.
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
	// Suppressions erases its suppression as well, so that mail goes to it again.
	Suppressions bool `json:"suppressions,omitempty"`
}

// Forgotten says what was erased, and what was not.
type Forgotten struct {
	history.Forgotten
	// Suppressed says that the address was on the list and was removed.
	Suppressed bool `json:"suppressed"`
	// Queued are the mails in the queue from or to the address. They stay there until
	// they are sent or dropped; the history does not record what becomes of them.
	Queued []QueuedMail `json:"queued"`
}

// QueuedMail is a mail in the queue.
type QueuedMail struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // of the recipient, or of the first one of the sender's mail
	Received time.Time `json:"received"`
}
