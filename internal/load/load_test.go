package load

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSink(t *testing.T, o SinkOptions) *Sink {
	t.Helper()
	o.Address = "127.0.0.1:0"
	s, err := NewSink(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func options(t *testing.T, s *Sink) Options {
	t.Helper()
	mail, err := Typical("alt20k", "a@mail.example.com", "b@example.net")
	if err != nil {
		t.Fatal(err)
	}
	return Options{Address: s.Address(), Clients: 3, Count: 50, Security: Plain, From: "a@mail.example.com", To: "b@example.net", Recipients: 1, Mail: mail}
}

// Each way to send has every mail arrive, for each recipient, once.
func TestEveryMailArrivesOnce(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"reused":           func(*Options) {},
		"new":              func(o *Options) { o.PerConnection = 1 },
		"pipelined":        func(o *Options) { o.Pipeline = true },
		"three recipients": func(o *Options) { o.Recipients = 3 },
		"at a rate":        func(o *Options) { o.Rate = 1000 },
	} {
		s := newSink(t, SinkOptions{SMTP: true})
		o := options(t, s)
		change(&o)
		r, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if a := s.Check(t.Context(), r, time.Second); r.Accepted != 50 || r.Failed() != 0 || a != (Arrivals{Exact: 50}) {
			t.Errorf("%s: %d accepted, %v failed; %+v", name, r.Accepted, r.Failures, a)
		}
	}
}

// What a relay loses, repeats, and sends without having said so is told apart.
func TestArrivals(t *testing.T) {
	s := newSink(t, SinkOptions{SMTP: true})
	r, err := Run(t.Context(), options(t, s))
	if err != nil {
		t.Fatal(err)
	}
	lost, repeated := r.ids[0], r.ids[1]
	delete(s.arrived, lost)
	s.arrived[repeated]++
	r.ids = r.ids[:len(r.ids)-1] // as if this one had not been answered
	if a := s.Check(t.Context(), r, time.Millisecond); a != (Arrivals{Exact: 47, Missing: 1, Repeated: 1, Ghosts: 1}) {
		t.Errorf("%+v", a)
	}
}

// The sink counts calls of an API, and takes whatever a client of Go's sends.
func TestAPI(t *testing.T) {
	s := newSink(t, SinkOptions{})
	for _, body := range []string{`{"subject":"smtpbench-000000010000000a"}`, `{"subject":"smtpbench-000000010000000a"}`, `{}`, ""} {
		resp, err := http.Post("http://"+s.Address()+"/send", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !bytes.Contains(answer, []byte(`"message_id":"msg_`)) {
			t.Errorf("%q: %v %s", answer, err, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if s.arrived[0x1_0000_000a] != 2 || s.unmarked != 2 {
		t.Errorf("%v, %d without a number", s.arrived, s.unmarked)
	}
}

// A server that is gone is a failure, not an end.
func TestNobodyListens(t *testing.T) {
	s := newSink(t, SinkOptions{})
	o := options(t, s)
	s.Close()
	o.Count, o.Clients = 2, 1
	r, err := Run(t.Context(), o)
	if err != nil || r.Accepted != 0 || r.Failed() != 2 || len(r.Failures) != 1 {
		t.Errorf("%v %+v", err, r)
	}
}

// With a rate, a mail's time begins when it was due: a server that stops for a while makes
// all mails slow that were due meanwhile.
func TestWaitsCountFromWhenAMailWasDue(t *testing.T) {
	s := newSink(t, SinkOptions{SMTP: true, Delay: 20 * time.Millisecond})
	o := options(t, s)
	o.Clients, o.Count, o.Rate = 1, 20, 1000
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Wait(.5); got < 100*time.Millisecond {
		t.Errorf("half of the mails took %v: the time in which they waited for the client is left out", got)
	}
}

// A line of a mail that begins with a dot arrives as it was.
func TestDots(t *testing.T) {
	m := NewMail([]byte("Subject: x\n\n.\n..two\nsmtpbench-0000000000000000 smtpbench-x"))
	if got, want := string(m.text), "Subject: x\r\n\r\n..\r\n...two\r\nsmtpbench-0000000000000000 smtpbench-x\r\n.\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	m.setID(m.text, 0xabc)
	if id, ok := markedIn(m.text); !ok || id != 0xabc || len(m.ids) != 1 {
		t.Errorf("%x %v %v", id, ok, m.ids)
	}
}

func TestUsage(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc here")
	}
	u, err := UsageOf(os.Getpid())
	if err != nil || u.Resident < 1<<20 || u.Peak < u.Resident {
		t.Errorf("%v %+v", err, u)
	}
	if _, err := UsageOf(-1); err == nil {
		t.Error("no error for a process that does not exist")
	}
}

func TestTheEndOfTheContextEndsTheRun(t *testing.T) {
	s := newSink(t, SinkOptions{SMTP: true})
	o := options(t, s)
	o.Count, o.Time = 0, time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r, err := Run(ctx, o); err != nil || r.Failed() != 0 {
		t.Errorf("%v %+v", err, r)
	}
}

// A rate that cannot be kept up shows in the times, also of what is never sent.
func TestWhatIsDueAndNotSentCounts(t *testing.T) {
	s := newSink(t, SinkOptions{SMTP: true, Delay: 200 * time.Millisecond})
	o := options(t, s)
	o.Clients, o.Count, o.Rate, o.Time = 1, 0, 1000, 300*time.Millisecond
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if sent := int(r.Accepted); sent > 10 || r.NotSent != 300-sent || r.Wait(.25) < 50*time.Millisecond {
		t.Errorf("%d sent, %d not; a quarter took %v", sent, r.NotSent, r.Wait(.25))
	}
}

func TestWait(t *testing.T) {
	r := &Result{}
	if r.Wait(.5) != 0 {
		t.Error("nothing took a time")
	}
	for i := range 100 {
		r.waits = append(r.waits, time.Duration(i+1))
	}
	for share, want := range map[float64]time.Duration{0: 1, .5: 50, .9: 90, .99: 99, .999: 100, 1: 100} {
		if got := r.Wait(share); got != want {
			t.Errorf("%v of 1 to 100 took %d, want %d", share, got, want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	s := newSink(t, SinkOptions{})
	for name, change := range map[string]func(*Options){
		"a number below 0":  func(o *Options) { o.Count, o.Time = -1, time.Second },
		"no number at all":  func(o *Options) { o.Rate = math.NaN() },
		"an endless rate":   func(o *Options) { o.Rate = math.Inf(1) },
		"a rate of never":   func(o *Options) { o.Rate = 1e-300 },
		"no port":           func(o *Options) { o.Address = "127.0.0.1" },
		"IPv6 without [":    func(o *Options) { o.Address = "::1" },
		"no host":           func(o *Options) { o.Address = ":25" },
		"port 0":            func(o *Options) { o.Address = "127.0.0.1:0" },
		"no domain":         func(o *Options) { o.To = "bob" },
		"another recipient": func(o *Options) { o.To = "a@example.net>\r\nRCPT TO:<b@example.net" },
	} {
		o := options(t, s)
		change(&o)
		if o.Check() == nil {
			t.Errorf("%s is taken", name)
		}
	}
	o := options(t, s)
	if o.Address = "[::1]:2525"; o.Check() != nil {
		t.Error(o.Check())
	}
}

// What looks like a number and is none does not hide the one that follows.
func TestTheNumberIsFoundBehindAnotherMark(t *testing.T) {
	s := newSink(t, SinkOptions{SMTP: true})
	o := options(t, s)
	o.Mail = NewMail([]byte("Subject: smtpbench-x smtpbench-\n\nsmtpbench-no\nsmtpbench-0000000000000000\n"))
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if a := s.Check(t.Context(), r, time.Millisecond); a != (Arrivals{Exact: 50}) {
		t.Errorf("%+v", a)
	}
}
