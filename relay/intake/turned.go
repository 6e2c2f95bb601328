package intake

import (
	"cmp"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// RefusedFiles says of a client how many of its mails were refused for an attachment.
type RefusedFiles struct {
	Client string // who logged in, or the IP address; "" is all clients beyond mostRefused
	Mails  int
	Latest time.Time
}

// mostRefused bounds the clients that are counted by name.
const mostRefused = 100

// refusedFiles counts by client. It is safe for concurrent use.
type refusedFiles struct {
	mu       sync.Mutex
	byClient map[string]*RefusedFiles
}

func (f *refusedFiles) count(c relay.Client, now time.Time) {
	name := c.User
	if name == "" {
		name = c.Addr
		if host, _, err := net.SplitHostPort(c.Addr); err == nil {
			name = host
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byClient == nil {
		f.byClient = map[string]*RefusedFiles{}
	}
	if f.byClient[name] == nil && len(f.byClient) >= mostRefused {
		name = ""
	}
	if f.byClient[name] == nil {
		f.byClient[name] = &RefusedFiles{Client: name}
	}
	f.byClient[name].Mails++
	f.byClient[name].Latest = now
}

// RefusedFiles returns the clients whose mail was refused for an attachment since the
// start, those with the most mails first.
func (in *Intake) RefusedFiles() []RefusedFiles {
	in.refusedFiles.mu.Lock()
	defer in.refusedFiles.mu.Unlock()
	all := make([]RefusedFiles, 0, len(in.refusedFiles.byClient))
	for _, c := range in.refusedFiles.byClient {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b RefusedFiles) int {
		return cmp.Or(cmp.Compare(b.Mails, a.Mails), cmp.Compare(a.Client, b.Client))
	})
	return all
}
