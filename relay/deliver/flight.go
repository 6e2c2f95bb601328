package deliver

import (
	"sync"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// flight is the recipients that are being tried now, each with the token of its
// latest claim. The queue promises that it claims no recipient twice; if it
// does all the same, the engine must not call for it twice.
type flight struct {
	mu     sync.Mutex
	tokens map[recipient]queue.Token
}

// recipient is a recipient of one mail, by its number in the envelope.
type recipient struct {
	mail   string
	number int
}

func newFlight() *flight { return &flight{tokens: map[recipient]queue.Token{}} }

func recipientOf(t queue.Token) recipient { return recipient{t.Mail, t.Recipient} }

// begin is false when the recipient is being tried already. That attempt is
// then settled by the token of this claim, which made its own worthless.
func (f *flight) begin(t queue.Token) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, twice := f.tokens[recipientOf(t)]
	f.tokens[recipientOf(t)] = t
	return !twice
}

// end returns the token by which the attempt is to be settled.
func (f *flight) end(t queue.Token) queue.Token {
	f.mu.Lock()
	defer f.mu.Unlock()
	latest := f.tokens[recipientOf(t)]
	delete(f.tokens, recipientOf(t))
	return latest
}
