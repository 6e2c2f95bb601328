// Package archive makes the copies of mail that archive_bcc asks for, and counts those
// that the archive did not get. A copy is a mail of its own in the queue, so that it
// changes neither the mail nor its reply, and its failure is a warning and no bounce.
package archive

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// mostNamed is how many recipients a copy names.
const mostNamed = 20

// Copy returns the copy of a mail for an archive. However often the mail comes, its copy
// has the same id.
func Copy(m *relay.Message, archive string) *relay.Message {
	id := relay.FirstID(m.ID)
	c := *m
	c.ID, c.Recipients, c.Aliases = queue.CopyID(id), []string{archive}, nil
	c.Client.CopyOf, c.Client.CopyFor = id, named(m.Recipients)
	return &c
}

func named(recipients []string) string {
	text := strings.Join(recipients[:min(len(recipients), mostNamed)], ", ")
	if n := len(recipients) - mostNamed; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// Came is what came of a copy, as a metric label.
type Came string

const (
	Queued Came = "queued" // to be sent
	Lost   Came = "lost"   // the queue did not take it
	Failed Came = "failed" // given up, or it bounced
)

// Tally counts copies. It is safe for concurrent use.
type Tally struct {
	copies *prometheus.CounterVec

	mu     sync.Mutex
	missed int64
	latest time.Time
}

// NewTally returns a Tally at zero. It registers its metric with reg, unless that is nil.
func NewTally(reg prometheus.Registerer) *Tally {
	t := &Tally{copies: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_archive_copies_total",
		Help: "Copies for archive_bcc, by what came of them: queued (to be sent), lost (the queue did not take it), failed (given up, or it bounced).",
	}, []string{"came"})}
	for _, came := range []Came{Queued, Lost, Failed} {
		t.copies.WithLabelValues(string(came))
	}
	return t
}

// Count counts one copy.
func (t *Tally) Count(came Came, now time.Time) {
	t.copies.WithLabelValues(string(came)).Inc()
	if came == Queued {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missed++
	t.latest = now
}

// Missed returns how many copies the archive did not get, and when that last happened.
func (t *Tally) Missed() (copies int64, latest time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.missed, t.latest
}
