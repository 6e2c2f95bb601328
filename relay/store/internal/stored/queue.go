// Package stored is how both engines write down what the contracts speak of: times,
// states, outcomes, the JSON of a record, cursors, and the conditions that a filter comes
// to. It has no connection to a database. What an engine does in a way of its own is
// in that engine.
package stored

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// The states of a recipient. queue.Waiting is two of them: ready for the lanes'
// turns, or later, to be made ready when its time comes. That is what makes both
// questions, "whose turn is it" and "what is due next", a look at the beginning of
// an index, however much is waiting.
const (
	Ready = iota
	Later
	Claimed
	Held
	Sent
	Failed
)

// states are the contract's words for them.
var states = [...]queue.State{Ready: queue.Waiting, Later: queue.Waiting, Claimed: queue.Claimed, Held: queue.Held, Sent: queue.Sent, Failed: queue.Failed}

// StateOf is the contract's word for a state.
func StateOf(s int64) queue.State { return states[min(uint64(s), Failed)] }

// State is how the state of a recipient that comes with its mail is stored. Its times
// are in milliseconds.
func State(s queue.State, due, received int64) int64 {
	if s == queue.Waiting && due > received {
		return Later
	}
	return int64(max(Ready, slices.Index(states[:], s)))
}

// Millis is how a time is stored, and Time the way back. 0 is none.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time is the time that is stored so.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Cause is how the cause of an outcome is stored, and CauseOf the way back.
func Cause(o relay.Outcome) string {
	if o.Cause == nil {
		return ""
	}
	return o.Cause.Error()
}

// CauseOf is the cause that is stored so.
func CauseOf(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

// Check refuses a mail that no queue takes. Otherwise it returns what is stored of the
// client, and whether there is something left to do, or to keep the content for.
func Check(m queue.Mail) (client string, keep bool, err error) {
	if m.Message.ID == "" || len(m.Recipients) == 0 {
		return "", false, errors.New("a mail without an id or a recipient cannot be queued")
	}
	if err := CheckAccount(m.Message.Account); err != nil {
		return "", false, fmt.Errorf("mail %s: %w", m.Message.ID, err)
	}
	for _, r := range m.Recipients {
		if r.State == queue.Claimed {
			return "", false, fmt.Errorf("mail %s: a recipient cannot come claimed", m.Message.ID)
		}
		keep = keep || r.State != queue.Sent
	}
	doc, err := json.Marshal(m.Message.Client)
	return string(doc), keep, err
}

// CheckAccount refuses a name that cannot be an account's.
func CheckAccount(name string) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("%q cannot be an account", name)
	}
	return nil
}

// CheckResults refuses settlements without a result.
func CheckResults(settlements []queue.Settlement) error {
	for _, x := range settlements {
		if x.Result < queue.Done || x.Result > queue.GaveUp {
			return fmt.Errorf("a settlement without a result for mail %s", x.Token.Mail)
		}
	}
	return nil
}

// BounceOf is a mail with those of its recipients of whom the sender is to be told.
func BounceOf(m queue.Mail) queue.Bounce {
	b := queue.Bounce{Mail: m}
	for _, r := range m.Recipients {
		if r.State == queue.Failed && !r.Bounced {
			b.Failed = append(b.Failed, r)
		}
	}
	return b
}

const (
	// MaxList is how many entries a page has at most.
	MaxList     = 1000
	defaultList = 100
	// ScanAtOnce is how many recipients one page looks at, at most: some 20 ms.
	ScanAtOnce = 20000
	// OperateAtOnce is how many recipients an operator's change takes in one step, so that
	// it does not hold up deliveries.
	OperateAtOnce = 500
)

// PageSize is how many entries a page has.
func PageSize(limit int) int { return min(cmp.Or(max(limit, 0), defaultList), MaxList) }

// Cursor is the key of the recipient that a page ended with.
type Cursor struct{ Mail, N int64 }

// BeforeAll is where the first page begins.
func BeforeAll() Cursor { return Cursor{Mail: -1} }

func (c Cursor) String() string { return fmt.Sprintf("%d.%d", c.Mail, c.N) }

// ParseCursor reads what String wrote, and "" for the first page.
func ParseCursor(s string) (Cursor, error) {
	if s == "" {
		return BeforeAll(), nil
	}
	var c Cursor
	if _, err := fmt.Sscanf(s, "%d.%d", &c.Mail, &c.N); err != nil {
		return c, fmt.Errorf("%w: %q", queue.ErrCursor, s)
	}
	return c, nil
}

// After is a string greater than all that begin with prefix.
func After(prefix string) string { return prefix + "\U0010FFFF" }

// Where is a WHERE clause. Each argument is a ? in it.
type Where struct {
	all  []string
	Args []any
}

// And adds a condition.
func (w *Where) And(condition string, args ...any) {
	w.all = append(w.all, condition)
	w.Args = append(w.Args, args...)
}

func (w Where) String() string {
	if len(w.all) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.all, " AND ")
}

// Filter adds what a filter of the queue asks for, of mails m and recipients r.
func (d Dialect) Filter(w *Where, f queue.Filter, millis func(time.Time) int64) {
	if f.ID != "" {
		w.And("m.id >= ? AND m.id < ?", f.ID, After(f.ID))
	}
	if len(f.States) > 0 {
		var in []string
		for stored, state := range states {
			if slices.Contains(f.States, state) {
				in = append(in, strconv.Itoa(stored))
			}
		}
		w.And("r.state IN (" + strings.Join(in, ", ") + ")")
	}
	if f.Sender != "" {
		w.And(fmt.Sprintf(d.Same, "m.sender"), f.Sender)
	}
	if f.Recipient != "" {
		w.And(fmt.Sprintf(d.Same, "r.addr"), f.Recipient)
	}
	if f.Account != "" {
		w.And("m.account = ?", account(f.Account))
	}
	if !f.From.IsZero() {
		w.And("m.received >= ?", millis(f.From))
	}
	if !f.Until.IsZero() {
		w.And("m.received < ?", millis(f.Until))
	}
}

// account is how the account that a filter names is stored.
func account(name string) string {
	if name == relay.DefaultAccount {
		return ""
	}
	return name
}

// FewStates is the stored state by whose index recipients are found: few are held or
// failed, while many may wait. It is false when there is none.
func FewStates(f queue.Filter) (int, bool) {
	if len(f.States) != 1 || f.States[0] != queue.Held && f.States[0] != queue.Failed {
		return 0, false
	}
	return slices.Index(states[:], f.States[0]), true
}

// Calls counts the calls that are under way, so that Close can wait for them.
type Calls struct {
	mu     sync.RWMutex // of closed, and of under.Add
	closed bool
	under  sync.WaitGroup
}

// Enter begins a call; the caller must Leave. It is false after Close.
func (c *Calls) Enter() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return false
	}
	c.under.Add(1)
	return true
}

// Leave ends a call.
func (c *Calls) Leave() { c.under.Done() }

// Close has no more calls begin, and waits for those that did. It says whether it was
// the first one.
func (c *Calls) Close() (first bool) {
	c.mu.Lock()
	first = !c.closed
	c.closed = true
	c.mu.Unlock()
	c.under.Wait()
	return first
}

// Metrics are what every queue measures of its storage.
type Metrics struct {
	Commits, Group prometheus.Histogram
	Errors         prometheus.Counter
}

// NewMetrics registers them. most is how many changes share a commit at most.
func NewMetrics(r prometheus.Registerer, most float64) Metrics {
	auto := promauto.With(r)
	return Metrics{
		Commits: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_storage_commit_seconds",
			Help:    "How long it took to make a group of changes durable. The disk's sync is most of it.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		Group: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "smtp2rest_storage_commit_changes",
			Help:    "How many changes shared a commit. It grows by itself with what goes on at the same time.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, most},
		}),
		Errors: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_storage_errors_total",
			Help: "Groups of changes that the storage refused. Nothing that was acknowledged is lost by it; what was refused is told to who asked.",
		}),
	}
}

// Broken says whether the storage works.
func Broken() prometheus.GaugeOpts {
	return prometheus.GaugeOpts{
		Name: "smtp2rest_storage_broken",
		Help: "1 from an I/O error of the storage on until it works again. No mail can be queued meanwhile.",
	}
}

// RecordErrors counts writes of records that failed.
func RecordErrors() prometheus.CounterOpts {
	return prometheus.CounterOpts{
		Name: "smtp2rest_records_errors_total",
		Help: "Groups of records that could not be written. Mail is not touched by it; the log says why.",
	}
}

// Dropped counts records that were given up.
func Dropped() prometheus.CounterOpts {
	return prometheus.CounterOpts{
		Name: "smtp2rest_records_dropped_total",
		Help: "Records that nobody waits for, such as history, that were given up: the storage failed, or was too slow for them.",
	}
}
