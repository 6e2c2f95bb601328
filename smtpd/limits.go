package smtpd

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// A class is what a client may do. How many connections there may be depends on it.
type class int

const (
	unknown  class = iota // behind a proxy that has not said yet where the client is
	stranger              // may not send before it logs in
	user                  // has logged in
	trusted               // may send without a login: from a listener's networks or a unix socket
	classes               // the number of classes
)

// A quarter of all connections is kept for trusted clients, where there can be any.
const reservedPart = 4

// connections counts the clients that are connected, and turns others away when
// there are too many. So that strangers do not keep out clients that may send:
//
//   - a part of all connections is reserved for trusted clients;
//   - a client that is no stranger and finds no room takes the place of a stranger;
//   - a stranger that finds no room takes the place of another stranger, from a
//     listener or an address that has more strangers than its own.
type connections struct {
	metrics *metrics

	mu        sync.Mutex
	limits    Limits
	reserved  int // of limits.Connections
	stopping  bool
	conns     map[*conn]struct{} // all, including those dropped and not closed yet
	byClass   [classes]int       // of those that count
	strangers map[*port]int      // by port; without zeros
	from      map[source]tally   // without zeros
	entered   uint64
}

// A source is where clients are counted together: an address at a port.
type source struct {
	origin netip.Prefix
	port   *port
}

type tally struct{ all, strangers int }

// An entry is how a connection is counted. Only connections writes it; the
// connection's own goroutine may read it.
type entry struct {
	source  source
	class   class
	counted bool
	number  uint64 // in the order in which they came
}

func newConnections(l Limits, m *metrics) *connections {
	return &connections{metrics: m, limits: l, conns: map[*conn]struct{}{}, strangers: map[*port]int{}, from: map[source]tally{}}
}

// enter admits a connection, or returns why not. A proxy may open any number of
// them: the clients' own addresses are not known yet.
func (r *connections) enter(c *conn, from source, as class) *reply.Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return reply.ShuttingDown()
	}
	r.entered++
	c.entry.number = r.entered
	if full := r.insert(c, from, as); full != nil {
		return full
	}
	r.conns[c] = struct{}{}
	r.metrics.opened.Inc()
	r.metrics.open.Inc()
	return nil
}

// move is enter for a connection whose proxy has said now where the client is. If
// it is not admitted, it does not count any more.
func (r *connections) move(c *conn, to source, as class) *reply.Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.entry.counted {
		return nil // it was dropped, and its client will be told
	}
	r.count(c, -1)
	return r.insert(c, to, as)
}

// classify changes the class of a connection.
func (r *connections) classify(c *conn, as class) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counted := c.entry.counted
	if counted {
		r.count(c, -1)
	}
	c.entry.class = as
	if counted {
		r.count(c, 1)
	}
}

func (r *connections) insert(c *conn, from source, as class) *reply.Reply {
	c.entry.source, c.entry.class = from, as
	switch {
	case as != unknown && r.from[from].all >= r.limits.ConnectionsPerAddress:
		r.metrics.hit(limitAddress)
		return reply.TooManyConnections()
	case !r.makeRoom(c):
		r.metrics.hit(limitConnections)
		return reply.TooManyConnections()
	}
	r.count(c, 1)
	return nil
}

// count adds 1 or -1 for a connection.
func (r *connections) count(c *conn, n int) {
	e := &c.entry
	e.counted = n > 0
	r.byClass[e.class] += n
	t := r.from[e.source]
	t.all += n
	if e.class == stranger {
		t.strangers += n
		if r.strangers[e.source.port] += n; r.strangers[e.source.port] == 0 {
			delete(r.strangers, e.source.port)
		}
	}
	r.from[e.source] = t
	if t.all == 0 {
		delete(r.from, e.source)
	}
}

// makeRoom reports whether there is room for one more connection. It may drop
// another one for it.
func (r *connections) makeRoom(c *conn) bool {
	untrusted := r.byClass[stranger] + r.byClass[user]
	all := untrusted + r.byClass[unknown] + r.byClass[trusted]
	if all < r.limits.Connections && (c.entry.class != stranger || untrusted < r.limits.Connections-r.reserved) {
		return true
	}
	dropped := r.strangerToDrop(c)
	if dropped == nil {
		return false
	}
	r.count(dropped, -1)
	r.metrics.hit(limitConnections)
	dropped.drop()
	return true
}

// strangerToDrop returns the stranger that makes room for a connection: the oldest
// where there are most of them. It is nil if none does.
func (r *connections) strangerToDrop(newcomer *conn) (found *conn) {
	for c := range r.conns {
		switch {
		case !c.entry.counted || c.entry.class != stranger:
		case newcomer.entry.class == stranger && !r.crowdedMore(c.entry.source, newcomer.entry.source):
		case found == nil || r.compare(c, found) > 0:
			found = c
		}
	}
	return found
}

// crowdedMore reports whether a source has more strangers than another even after
// one of them has gone and one has come to the other.
func (r *connections) crowdedMore(a, b source) bool {
	if a.port != b.port {
		return r.strangers[a.port] > r.strangers[b.port]+1
	}
	return r.from[a].strangers > r.from[b].strangers+1
}

// compare is positive if a is to be dropped rather than b.
func (r *connections) compare(a, b *conn) int {
	x, y := a.entry, b.entry
	return cmp.Or(
		cmp.Compare(r.strangers[x.source.port], r.strangers[y.source.port]),
		cmp.Compare(r.from[x.source].strangers, r.from[y.source].strangers),
		cmp.Compare(y.number, x.number))
}

func (r *connections) leave(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	r.metrics.open.Dec()
	if c.entry.counted {
		r.count(c, -1)
	}
}

// stop admits nobody any more and stops every connection.
func (r *connections) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	for c := range r.conns {
		c.stop()
	}
}

// stopAt stops the connections that came by a port that was closed.
func (r *connections) stopAt(p *port) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		if c.listener.port == p {
			c.stop()
		}
	}
}

// apply sets the limits for connections that come from now on. reserve says
// whether there can be trusted clients.
func (r *connections) apply(l Limits, reserve bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits, r.reserved = l, 0
	if reserve {
		r.reserved = l.Connections / reservedPart
	}
}

// abort cuts all connections, and returns how many there were.
func (r *connections) abort() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.abort()
	}
	return len(r.conns)
}

// ratesKept bounds each table of rates to about a megabyte. The name that was
// longest not seen is forgotten first: a flood of made-up senders gains nothing by
// that, as each of them may send once anyway.
const ratesKept = 10_000

// A meter counts recipients by address, user and sender, against the rate of
// each.
type meter struct {
	mu    sync.Mutex
	rates []meteredRate
}

type meteredRate struct {
	limit limit
	what  string // in the reply
	rate  func(*session) auth.Rate
	key   func(*session) string // whom the rate is for; "" is not counted
	table *rateTable
}

func newMeter(l Limits) *meter {
	forAll := func(r auth.Rate) func(*session) auth.Rate { return func(*session) auth.Rate { return r } }
	forUser := func(s *session) auth.Rate {
		if s.user != nil && s.user.Rate.Bounds() {
			return s.user.Rate
		}
		return l.UserRate
	}
	address := func(s *session) string {
		if !s.client.Addr.IsValid() {
			return "" // on this machine, or behind a proxy that does not say
		}
		return origin(s.client.Addr).String()
	}
	return &meter{rates: []meteredRate{
		{limitAddressRate, "this address", forAll(l.AddressRate), address, newRateTable()},
		{limitUserRate, "this user", forUser, func(s *session) string { return s.client.User }, newRateTable()},
		{limitSenderRate, "this sender", forAll(l.SenderRate), func(s *session) string { return s.envelope.From }, newRateTable()},
	}}
}

// apply sets the rates. What was counted stays: the tables hold times, which mean
// the same for any rate.
func (m *meter) apply(l Limits) {
	next := newMeter(l)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.rates {
		m.rates[i].rate = next.rates[i].rate
	}
}

// full returns the reply for a session that may not have one more recipient now,
// and the limit that it has met.
func (m *meter) full(s *session, now time.Time) (refused *reply.Reply, met limit) {
	m.each(s, func(r meteredRate, key string, rate auth.Rate) {
		if wait := r.table.wait(key, rate, now); wait > 0 && refused == nil {
			refused, met = reply.RateExceeded(r.what, wait), r.limit
		}
	})
	return refused, met
}

// count counts a recipient.
func (m *meter) count(s *session, now time.Time) {
	m.each(s, func(r meteredRate, key string, rate auth.Rate) { r.table.add(key, rate, now) })
}

// each calls f for every rate that bounds a session.
func (m *meter) each(s *session, f func(r meteredRate, key string, rate auth.Rate)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rates {
		rate := r.rate(s)
		if !rate.Bounds() {
			continue
		}
		if key := r.key(s); key != "" {
			f(r, key, rate)
		}
	}
}

// A rateTable knows for each name the time at which all that was counted would
// have been spent evenly (the generic cell rate algorithm). Names are hashed:
// clients choose how long they are.
type rateTable struct {
	seed  maphash.Seed
	until *simplelru.LRU[uint64, time.Time]
}

func newRateTable() *rateTable {
	until, _ := simplelru.NewLRU[uint64, time.Time](ratesKept, nil) // its only error is a size of 0
	return &rateTable{maphash.MakeSeed(), until}
}

// wait is how long it is until one more fits; 0 is now.
func (t *rateTable) wait(name string, r auth.Rate, now time.Time) time.Duration {
	until, ok := t.until.Peek(maphash.String(t.seed, name))
	if !ok {
		return 0
	}
	return max(0, until.Sub(now)+r.Per/time.Duration(r.Number)-r.Per)
}

func (t *rateTable) add(name string, r auth.Rate, now time.Time) {
	key := maphash.String(t.seed, name)
	until, _ := t.until.Peek(key)
	if until.Before(now) {
		until = now
	}
	t.until.Add(key, until.Add(r.Per/time.Duration(r.Number)))
}

// A clock bounds the reading of a connection: a whole command line comes within
// IdleTime, however its octets are spread; a whole message within MessageTime, its
// octets no further apart than IdleTime and no more slowly than MinRate. The
// conn's lock guards it.
//
// The rate is a leaky bucket. It holds at most what a client at MinRate sends in
// RateTime, starts full, and is filled by what comes; the connection ends when it
// is empty. So a pause of up to RateTime is forgiven now and then, and a client
// that sends an octet at a time is not.
type clock struct {
	limits   Limits
	stranger bool // has less time for a command

	lineEnd    time.Time // of the command line that is being read
	messageEnd time.Time // of the message that is being read
	credit     float64   // octets in the bucket at the time at
	at         time.Time
}

// idle is how long the client may be silent.
func (c *clock) idle() time.Duration {
	if c.stranger {
		return min(c.limits.IdleTime, c.limits.StrangerTime)
	}
	return c.limits.IdleTime
}

func (c *clock) startLine(now time.Time) { c.lineEnd = now.Add(c.idle()) }

func (c *clock) endLine(time.Time) { c.lineEnd = time.Time{} }

func (c *clock) startMessage(now time.Time) {
	if c.messageEnd.IsZero() {
		c.messageEnd = now.Add(c.limits.MessageTime)
		c.credit, c.at = c.most(), now
	}
}

func (c *clock) endMessage(time.Time) { c.messageEnd = time.Time{} }

func (c *clock) most() float64 { return float64(c.limits.MinRate) * c.limits.RateTime.Seconds() }

// read counts n octets that have come.
func (c *clock) read(now time.Time, n int) {
	c.credit = min(c.left(now)+float64(n), c.most())
	c.at = now
}

func (c *clock) left(now time.Time) float64 {
	return c.credit - float64(c.limits.MinRate)*now.Sub(c.at).Seconds()
}

// rated reports whether MinRate counts now.
func (c *clock) rated() bool { return !c.messageEnd.IsZero() && c.limits.MinRate > 0 }

// excuse adds the time that we kept the client waiting.
func (c *clock) excuse(d time.Duration) {
	if !c.messageEnd.IsZero() {
		c.messageEnd, c.at = c.messageEnd.Add(d), c.at.Add(d)
	}
}

// deadline is when a read that starts now has to end.
func (c *clock) deadline(now time.Time) time.Time {
	d := now.Add(c.idle())
	if !c.lineEnd.IsZero() && c.lineEnd.Before(d) {
		d = c.lineEnd
	}
	if !c.messageEnd.IsZero() && c.messageEnd.Before(d) {
		d = c.messageEnd
	}
	if c.rated() {
		seconds := c.left(now) / float64(c.limits.MinRate)
		if empty := now.Add(time.Duration(seconds * float64(time.Second))); empty.Before(d) {
			d = empty
		}
	}
	return d
}

// missed returns the reply to a client that missed the deadline, and the limit
// that it has met.
func (c *clock) missed(now time.Time) (*reply.Reply, limit) {
	switch {
	case !c.messageEnd.IsZero() && !now.Before(c.messageEnd):
		return reply.TooSlow(), limitMessageTime
	case c.rated() && c.left(now) <= 0:
		return reply.BelowRate(), limitMinRate
	case c.stranger && c.limits.StrangerTime < c.limits.IdleTime:
		return reply.TooSlow(), limitStrangerTime
	}
	return reply.TooSlow(), limitIdle
}

// counts are what a client has done in vain.
type counts struct {
	errors      int // wrong commands since the last message taken
	recipients  int // refused recipients since the last one taken
	idle        int // commands that bring no mail nearer, since the last message taken
	later       int // recipients told to come in a next transaction, since the last message taken
	beforeLogin int // commands of a client that may not send
	messages    int // messages answered on this connection
}

// forgive is called when a message is taken.
func (c *counts) forgive() { c.errors, c.recipients, c.idle, c.later = 0, 0, 0, 0 }

// replied counts a reply to a command by its last line, and returns the limit that
// the client has met by it, if any.
//
// A refusal of a message's content is no error of the client's, and refused
// recipients have a count of their own. A client that is told to come later and
// tries again at once brings no mail nearer. Some clients name thousands of
// recipients at once and want to hear for each that it has to come in a next
// transaction.
func (c *counts) replied(verb, line string, r *reply.Reply, l Limits) limit {
	policy := strings.HasPrefix(line, "55")
	switch {
	case strings.HasPrefix(line, "421"):
		return "" // the connection ends already
	case verb == "RCPT" && line[0] == '2':
		c.recipients = 0
	case verb == "RCPT" && policy:
		c.recipients++
	case policy && (verb == "DATA" || verb == "BDAT"):
	case line[0] == '5':
		c.errors++
	case r != nil && r.String() == reply.TooManyRecipients().String():
		c.later++
	case line[0] == '4':
		c.idle++
	}
	switch {
	case line[0] == '4' && (c.idle > l.IdleCommands || c.later > 10*l.IdleCommands):
		return limitIdleCommands
	case line[0] != '5':
	case c.errors >= l.WrongCommands:
		return limitWrongCommands
	case c.recipients >= l.WrongRecipients:
		return limitWrongRecipients
	}
	return ""
}
