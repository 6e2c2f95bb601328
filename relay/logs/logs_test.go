package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// page is a log that can be read while it is written.
type page struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

// lines returns what was written since the last call, without times.
func (p *page) lines() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.buf.Reset()
	return regexp.MustCompile(`"?time"?[=:]"?[^" ,]+"?[ ,]`).ReplaceAllString(p.buf.String(), "")
}

func TestFormats(t *testing.T) {
	for name, tt := range map[string]struct {
		opt  Options
		want string
	}{
		"for people":          {Options{Settings: Settings{Format: Auto}}, "level=WARN msg=\"two words\" n=1\n"},
		"for programs":        {Options{Settings: Settings{Format: JSON}}, `{"level":"WARN","msg":"two words","n":1}` + "\n"},
		"the journal":         {Options{Settings: Settings{Format: Auto}, Journal: true}, "<4>msg=\"two words\" n=1\n"},
		"the journal, text":   {Options{Settings: Settings{Format: Text}, Journal: true}, "<4>level=WARN msg=\"two words\" n=1\n"},
		"the journal in JSON": {Options{Settings: Settings{Format: JSON}, Journal: true}, `<4>{"level":"WARN","msg":"two words","n":1}` + "\n"},
	} {
		p := &page{}
		tt.opt.W = p
		l := New(tt.opt)
		l.Warn("two words", "n", 1)
		l.Debug("not this one")
		l.Close()
		if got := p.lines(); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestPriorities(t *testing.T) {
	p := &page{}
	l := New(Options{W: p, Settings: Settings{Format: Auto, Level: slog.LevelDebug}, Journal: true})
	defer l.Close()
	with := l.With("id", "m1").WithGroup("g")
	with.Debug("a")
	with.Info("b")
	with.Warn("c\n<0>not a line of its own", "time", "kept")
	with.Error("d", "n", 1)
	want := "<7>msg=a id=m1\n<6>msg=b id=m1\n<4>msg=\"c\\n<0>not a line of its own\" id=m1 g.time=kept\n<3>msg=d id=m1 g.n=1\n"
	if got := p.buf.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLevelChanges(t *testing.T) {
	for _, journal := range []bool{false, true} {
		p := &page{}
		l := New(Options{W: p, Settings: Settings{Format: Auto}, Journal: journal})
		old := l.With("made", "before")
		old.Debug("hidden")
		l.Change(Settings{Level: slog.LevelDebug, Format: Auto})
		old.Debug("shown")
		l.Change(Settings{Level: slog.LevelError, Format: Auto})
		old.Warn("hidden")
		l.Close()
		if got := p.lines(); strings.Contains(got, "hidden") || strings.Count(got, "shown") != 1 {
			t.Errorf("journal %v: %s", journal, got)
		}
	}
}

// Warnings and errors that repeat are counted: the first lines are written, and then
// one that says how many more there were. Lines about a recipient are always written.
func TestRepeatedTroubleIsSummed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{}
		l := New(Options{W: p, Settings: Settings{Format: Auto}, Always: []string{"recipient"}})
		defer l.Close()
		log := l.With("part", "x")
		for i := range 1239 {
			log.With("id", i).Warn("the disk is on fire", "cause", i)
			log.Warn("recipient", "n", i)
			log.Info("as it should be")
			l.Error("the disk is on fire") // another level is another matter
		}
		got := p.lines()
		for part, want := range map[string]int{
			"level=WARN msg=\"the disk is on fire\"": shown, "level=ERROR msg=\"the disk is on fire\"": shown,
			"msg=recipient": 1239, "as it should be": 1239, "more like it": 0,
		} {
			if n := strings.Count(got, part); n != want {
				t.Errorf("%d lines with %s, want %d", n, part, want)
			}
		}
		time.Sleep(time.Minute + 1)
		synctest.Wait()
		got = p.lines()
		if want := "level=WARN msg=\"… and 1234 more like it in 60 s\" like=\"the disk is on fire\" more=1234\n"; !strings.Contains(got, want) || strings.Count(got, "\n") != 2 {
			t.Errorf("after a minute: %s", got)
		}
		log.Warn("the disk is on fire", "cause", "again")
		if got := p.lines(); got != "level=WARN msg=\"the disk is on fire\" part=x cause=again\n" {
			t.Errorf("the next minute: %s", got)
		}
		time.Sleep(time.Hour) // a window that owes nothing needs no end
		log.Warn("the disk is on fire", "cause", "later")
		if got := p.lines(); got != "level=WARN msg=\"the disk is on fire\" part=x cause=later\n" {
			t.Errorf("an hour later: %s", got)
		}
	})
}

// Lines that a client causes are summed up for this client alone, at any level, and by
// its reply, however many clients there are.
func TestClientsAreSummed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{}
		l := New(Options{W: p, Settings: Settings{Format: Auto}, ByClient: []string{"refused"}})
		defer l.Close()
		for i := range 100 {
			one := l.With("session", i, "client", fmt.Sprintf("192.0.2.1:%d", i))
			one.Info("refused", "command", "RCPT", "reply", "450 4.7.1 later")
			one.Info("message")
		}
		l.With("client", "192.0.2.1:9").Info("refused", "reply", "550 5.7.1 never")
		l.With("client", "[2001:db8::1]:9").Info("refused", "reply", "450 4.7.1 later")
		got := p.lines()
		for part, want := range map[string]int{"msg=refused": shown + 2, "msg=message": 100, "550 5.7.1": 1, "2001:db8::1": 1} {
			if n := strings.Count(got, part); n != want {
				t.Errorf("%d lines with %s, want %d", n, part, want)
			}
		}
		time.Sleep(time.Minute + 1)
		synctest.Wait()
		if got, want := p.lines(), "level=INFO msg=\"… and 95 more like it in 60 s\" like=refused client=192.0.2.1 reply=450 more=95\n"; got != want {
			t.Errorf("after a minute: %s", got)
		}

		// Clients beyond the limit are counted together. They take no room from the
		// program's own messages.
		for i := range 2 * messages {
			for range shown + 1 {
				l.With("client", fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)).Info("refused", "reply", "421 4.7.0 too many")
			}
		}
		for range shown + 1 {
			l.Warn("the disk is on fire")
		}
		if n := strings.Count(p.lines(), "\n"); n != messages*shown+2*shown {
			t.Errorf("%d lines", n)
		}
		l.peers.mu.Lock()
		if n := len(l.peers.open); n > messages+1 {
			t.Errorf("%d are kept", n)
		}
		l.peers.mu.Unlock()
		time.Sleep(time.Minute + 1)
		synctest.Wait()
		got, rest := p.lines(), messages*(shown+1)-shown
		if !strings.Contains(got, fmt.Sprintf("like=refused more=%d\n", rest)) || !strings.Contains(got, `like="the disk is on fire" more=1`) {
			t.Errorf("in the end: %s", got[max(0, len(got)-300):])
		}
	})
}

// At the end no count is lost, and later lines are written.
func TestCloseWritesTheSums(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{}
		l := New(Options{W: p, Settings: Settings{Format: JSON}})
		for range shown + 3 {
			l.Error("trouble")
		}
		p.lines()
		time.Sleep(20 * time.Second)
		l.Close()
		var line struct {
			Msg, Like string
			More      int
		}
		if err := json.Unmarshal([]byte(p.lines()), &line); err != nil || line.More != 3 || line.Like != "trouble" || line.Msg != "… and 3 more like it in 20 s" {
			t.Errorf("%v %+v", err, line)
		}
		for range 2 * shown {
			l.Error("trouble")
		}
		l.Close()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := p.lines(); strings.Count(got, "\n") != 2*shown {
			t.Errorf("after the end: %s", got)
		}
	})
}

// However many messages there are, memory is bounded, and no line is dropped without a
// sum.
func TestManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{}
		l := New(Options{W: p, Settings: Settings{Format: Auto}})
		for i := range 2 * messages {
			for range shown + 1 {
				l.Warn(fmt.Sprintf("message %d.", i))
			}
		}
		if n := len(l.sums.open); n > messages {
			t.Errorf("%d messages are kept", n)
		}
		l.Close()
		all := p.lines()
		for _, i := range []int{0, messages - 1, messages, 2*messages - 1} {
			n := strings.Count(all, fmt.Sprintf("msg=\"message %d.\"", i)) + strings.Count(all, fmt.Sprintf("like=\"message %d.\" more=1", i))
			if n != shown+1 {
				t.Errorf("message %d: %d lines, want %d", i, n, shown+1)
			}
		}
		// Windows that are over and have no sum to write make room.
		q := New(Options{W: p, Settings: Settings{Format: Auto}})
		defer q.Close()
		for i := range messages {
			q.Warn(fmt.Sprint(i))
		}
		time.Sleep(time.Hour)
		q.Warn("new")
		if n := len(q.sums.open); n != 1 {
			t.Errorf("%d messages are kept, want 1", n)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	p := &page{}
	l := New(Options{W: p, Settings: Settings{Format: Auto}, Journal: true, Window: time.Millisecond})
	var wg sync.WaitGroup
	const each, writers = 500, 8
	for range writers {
		wg.Go(func() {
			for range each {
				l.Error("trouble")
			}
		})
	}
	wg.Wait()
	l.Close()
	all := p.lines()
	total := strings.Count(all, "<3>msg=trouble\n")
	for _, m := range regexp.MustCompile(`more=(\d+)\n`).FindAllStringSubmatch(all, -1) {
		var n int
		if _, err := fmt.Sscan(m[1], &n); err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total != each*writers {
		t.Errorf("%d lines are accounted for, want %d", total, each*writers)
	}
}

func TestIsJournal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	env := func(value string) func(string) (string, bool) {
		return func(name string) (string, bool) { return value, name == "JOURNAL_STREAM" && value != "" }
	}
	if !IsJournal(f, env(deviceAndInode(f))) {
		t.Error("the file that is named is not taken for the journal")
	}
	for _, value := range []string{"", "1:1", "x"} {
		if IsJournal(f, env(value)) {
			t.Errorf("JOURNAL_STREAM=%s is taken for this file", value)
		}
	}
}

// A logger that was made before a change keeps its attributes and groups.
func TestFormatChanges(t *testing.T) {
	p := &page{}
	l := New(Options{W: p, Settings: Settings{Format: Auto}})
	defer l.Close()
	child := l.With("session", "s1").WithGroup("g").With("a", 1)
	child.Info("one", "b", 2)
	l.Change(Settings{Level: slog.LevelInfo, Format: JSON})
	child.Info("two", "b", 2)
	const want = "level=INFO msg=one session=s1 g.a=1 g.b=2\n" + `{"level":"INFO","msg":"two","session":"s1","g":{"a":1,"b":2}}` + "\n"
	if got := p.lines(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
