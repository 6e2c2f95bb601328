// Package notify tells an operator of failures, by mail and by a signed webhook: when
// a cause begins, once a day while it lasts, and when it is over. It judges nothing
// itself: what there is to tell are the warnings of 'smtp2rest status', which relay/app
// hands it once a minute. Causes that are found together are told together, and each at
// most once in Settings.Again.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/internal/signedpost"
)

// Settings are what the configuration says. internal/settings explains the tags.
type Settings struct {
	Mail          []string      `toml:"mail" check:"emails" doc:"Who is told of failures by mail, as in [\"ops@example.com\"]. While the provider takes no mail at all, only url can tell."`
	URL           string        `toml:"url" check:"hook url" doc:"An address to which notifications are posted as signed JSON, as in \"https://ops.example.com/smtp2rest\"."`
	AllowInsecure bool          `toml:"allow_insecure" doc:"Allows an http:// URL on another machine. What is posted can then be read on the way."`
	Timeout       time.Duration `toml:"timeout" default:"10s" range:"100ms..1m" doc:"The longest time for one call of url."`
	Again         time.Duration `toml:"again" default:"1h" range:"1m..7d" doc:"The shortest time between two notifications of the same cause. One that lasts is told again after a day."`
	Limits
}

// Limits say from when on something is told. relay/app judges by them.
type Limits struct {
	BreakerOpen time.Duration `toml:"breaker_open" default:"5m" range:"0s..7d" doc:"How long the API must be down, or forbid all mail, before that is told. A key that is refused is told at once."`
	QueueAge    time.Duration `toml:"queue_age" default:"6h" range:"5m..366d" doc:"How long the oldest mail in the queue must wait before that is told."`
	Bounces     int           `toml:"bounces" default:"50" range:"0..1000000000" doc:"How many recipients must have bounced within 24 hours before that is told. It needs the webhook. 0: never."`
	Complaints  int           `toml:"complaints" default:"5" range:"0..1000000000" doc:"How many recipients must have complained within 24 hours before that is told. It needs the webhook. 0: never."`
}

// On reports whether anybody is told.
func (s Settings) On() bool { return len(s.Mail) > 0 || s.URL != "" }

// Cause is one thing that an operator should know: a warning of 'smtp2rest status'.
type Cause struct {
	Name     string    `json:"cause"`
	Account  string    `json:"account,omitempty"`
	Endpoint string    `json:"endpoint,omitempty"` // of [[forward]]
	Level    string    `json:"level"`
	What     string    `json:"what"`
	Why      string    `json:"why"`
	Do       string    `json:"do,omitempty"`
	Count    int64     `json:"count,omitempty"` // of what was counted; told again when there are more
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"` // when it ended, or will
}

func (c Cause) key() string {
	if c.Endpoint != "" {
		return c.Name + "/" + c.Account + "/" + c.Endpoint
	}
	return c.Name + "/" + c.Account
}

// State is what is told of a cause.
type State string

// The states.
const (
	Begins State = "begins"
	Lasts  State = "lasts"
	Over   State = "over"
)

// News is a cause with what is told of it.
type News struct {
	State State `json:"state"`
	Cause
}

// Notification is what is told at once. It is posted as it is.
type Notification struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"` // TypeNotification
	Created time.Time `json:"created_at"`
	Host    string    `json:"host"`
	Version string    `json:"version"`
	News    []News    `json:"news"`
	Text    string    `json:"text"` // all of it for people
}

// TypeNotification tells a notification from what relay/forward posts.
const TypeNotification = "notification"

// ErrNotNow: what there is cannot be judged now.
var ErrNotNow = errors.New("not now")

// Options are what a Notifier is made from.
type Options struct {
	Settings
	Secret  string
	Host    func() string // the relay's name
	Version string
	Look    func(ctx context.Context) ([]Cause, error) // what there is to tell
	Send    func(ctx context.Context, n Notification, to []string) error
	Load    func(ctx context.Context, name string) (string, error) // what Save kept; nil: nothing is
	Save    func(ctx context.Context, name, value string) error
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // for tests
}

// Notifier tells. Start and Stop bound its life.
type Notifier struct {
	opt      Options
	set      atomic.Pointer[settings]
	post     *signedpost.Client
	channels []*channel
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

// settings are what Prepare changes.
type settings struct {
	Settings
	secret string
}

// channel is one way to tell, with what was told by it.
type channel struct {
	name   string
	on     func(s *settings) bool
	tell   func(ctx context.Context, s *settings, n Notification) error
	ledger ledger

	sent, failed prometheus.Counter

	mu    sync.Mutex // of what Trouble reads
	fails int        // in a row
	since time.Time
	last  error
	next  time.Time // not before
}

const (
	// every is how often it is looked what there is to tell, and first when that is done
	// after the start.
	every = time.Minute
	first = 10 * time.Second
)

// mostWait is the longest a channel that fails is left alone.
const mostWait = time.Hour

// New returns a Notifier that tells nothing yet.
func New(o Options) *Notifier {
	n := &Notifier{opt: o, post: signedpost.New(signedpost.Options{UserAgent: "smtp2rest/" + o.Version, Dial: o.Dial})}
	n.set.Store(&settings{o.Settings, o.Secret})
	told := promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_notifications_total",
		Help: "Notifications of failures ([notify]), by way and by result. One that failed is tried again while there is something to tell.",
	}, []string{"by", "result"})
	n.channels = []*channel{
		{name: "mail", on: func(s *settings) bool { return len(s.Mail) > 0 }, tell: n.byMail},
		{name: "webhook", on: func(s *settings) bool { return s.URL != "" }, tell: n.byWebhook},
	}
	for _, c := range n.channels {
		c.ledger, c.sent, c.failed = ledger{}, told.WithLabelValues(c.name, "sent"), told.WithLabelValues(c.name, "failed")
	}
	return n
}

// Prepare makes ready to tell others, or of other causes.
func (n *Notifier) Prepare(s Settings, secret string) (apply func()) {
	return func() {
		n.set.Store(&settings{s, secret})
		for _, c := range n.channels { // another address may be the way out
			c.ended(nil, time.Now())
		}
	}
}

// Start begins to look, after what was told before a restart is known.
func (n *Notifier) Start(ctx context.Context) error {
	for _, c := range n.channels {
		if n.opt.Load == nil {
			break
		}
		text, err := n.opt.Load(ctx, c.name)
		if err != nil {
			return err
		}
		// What cannot be read is as good as nothing: it is told once more.
		_ = json.Unmarshal([]byte(text), &c.ledger)
		if c.ledger == nil {
			c.ledger = ledger{}
		}
	}
	ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	n.done.Go(func() {
		next := time.NewTimer(first)
		defer next.Stop()
		for {
			select {
			case <-next.C:
				n.look(ctx)
				next.Reset(every)
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

// Stop ends it, and waits for a notification that is under way.
func (n *Notifier) Stop() {
	if n.cancel != nil {
		n.cancel()
	}
	n.done.Wait()
	n.post.Close()
}

// look tells what there is to tell.
func (n *Notifier) look(ctx context.Context) {
	set := n.set.Load()
	if !set.On() {
		return
	}
	causes, err := n.opt.Look(ctx)
	if err != nil {
		if !errors.Is(err, ErrNotNow) && ctx.Err() == nil {
			n.opt.Log.Error("it is not known whether there is something to tell of", "cause", err)
		}
		return
	}
	for _, c := range n.channels {
		if c.on(set) {
			n.tellBy(ctx, c, set, causes)
		}
	}
}

// tellBy tells by one channel. What it fails to tell is due again at the next look, if
// there is still something to tell.
func (n *Notifier) tellBy(ctx context.Context, c *channel, set *settings, causes []Cause) {
	now := time.Now()
	news := c.ledger.due(causes, now, set.Again)
	if len(news) == 0 || now.Before(c.notBefore()) {
		return
	}
	note := newNotification(news, n.opt.Host(), n.opt.Version, now)
	err := c.tell(ctx, set, note)
	if ctx.Err() != nil {
		return // what was cut off is told by the next process
	}
	c.ended(err, now)
	if err != nil {
		c.failed.Inc()
		n.opt.Log.Error("a notification cannot be sent", "by", c.name, "cause", err)
		return
	}
	c.sent.Inc()
	n.opt.Log.Info("notified", "by", c.name, "id", note.ID, "subject", note.subject())
	c.ledger.told(news, now)
	if err := n.save(ctx, c); err != nil {
		n.opt.Log.Error("what was told cannot be written down; a restart may tell it again", "cause", err)
	}
}

func (n *Notifier) save(ctx context.Context, c *channel) error {
	if n.opt.Save == nil {
		return nil
	}
	text, err := json.Marshal(c.ledger)
	if err != nil {
		return err
	}
	return n.opt.Save(ctx, c.name, string(text))
}

func (n *Notifier) byMail(ctx context.Context, s *settings, note Notification) error {
	return n.opt.Send(ctx, note, s.Mail)
}

func (n *Notifier) byWebhook(ctx context.Context, s *settings, note Notification) error {
	return post(ctx, n.post, s, note)
}

func post(ctx context.Context, c *signedpost.Client, s *settings, note Notification) error {
	body, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return c.Post(ctx, signedpost.Target{URL: s.URL, Secret: s.secret, Timeout: s.Timeout}, body)
}

// Test posts a notification that only tries the address.
func Test(ctx context.Context, s Settings, secret, host, version string) (Notification, error) {
	note := newNotification([]News{{State: Begins, Cause: Cause{
		Name: "test", Level: "info", What: "nothing is wrong", Why: "this is a test", Do: "nothing: 'smtp2rest notify test' was run",
	}}}, host, version, time.Now())
	c := signedpost.New(signedpost.Options{UserAgent: "smtp2rest/" + version})
	defer c.Close()
	return note, post(ctx, c, &settings{s, secret}, note)
}

func newNotification(news []News, host, version string, now time.Time) Notification {
	n := Notification{ID: "ntf_" + relay.NewID(now), Type: TypeNotification, Created: now.Round(0).UTC(), Host: host, Version: version, News: news}
	n.Text = n.text()
	return n
}

func (c *channel) notBefore() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

// ended notes what came of one try.
func (c *channel) ended(err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = err
	if err == nil {
		c.fails, c.since, c.next = 0, time.Time{}, time.Time{}
		return
	}
	if c.fails == 0 {
		c.since = now
	}
	c.fails++
	c.next = now.Add(min(every<<min(c.fails-1, 10), mostWait))
}

// Trouble is a channel that cannot be told by.
type Trouble struct {
	By    string
	Since time.Time
	Err   error
}

// Trouble returns the channels whose latest notification failed.
func (n *Notifier) Trouble() []Trouble {
	var list []Trouble
	for _, c := range n.channels {
		c.mu.Lock()
		if c.last != nil {
			list = append(list, Trouble{c.name, c.since, c.last})
		}
		c.mu.Unlock()
	}
	return list
}
