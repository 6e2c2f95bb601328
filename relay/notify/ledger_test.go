package notify

import (
	"encoding/json"
	"fmt"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// TestLedger tells a story by minutes: which causes there are, and what is told.
func TestLedger(t *testing.T) {
	down, key := Cause{Name: "api_down"}, Cause{Name: "key_refused", Account: "shop"}
	failed := func(n int64) Cause { return Cause{Name: "failed", Count: n} }
	l, begin := ledger{}, time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		minute int
		causes []Cause
		want   string
	}{
		{0, nil, ""},
		{1, []Cause{down, key}, "begins api_down/ begins key_refused/shop"},
		{2, []Cause{down, key}, ""},
		{3, []Cause{key}, ""}, // gone, but not for long
		{7, []Cause{key}, ""},
		{8, []Cause{key}, "over api_down/"},
		{9, []Cause{down, key}, ""}, // in the same hour
		{60, []Cause{down, key}, ""},
		{61, []Cause{down, key}, "begins api_down/"},
		{1440, []Cause{down, key}, ""},
		{1441, []Cause{down, key}, "lasts key_refused/shop"},
		{1442, []Cause{down}, ""},
		{1447, []Cause{down}, "over key_refused/shop"},
		{1500, []Cause{down}, ""},
		{1501, []Cause{down}, "lasts api_down/"},
		{1502, []Cause{down, failed(2)}, "begins failed/"},
		{1503, []Cause{failed(3)}, ""},
		{1562, []Cause{failed(3)}, "over api_down/ begins failed/"},
		{1700, []Cause{failed(2)}, ""}, // one was dropped
		{1701, []Cause{failed(3)}, "begins failed/"},
		{1800, nil, ""}, // what failed is never over
		{1801, []Cause{failed(1)}, "begins failed/"},
		{1700, []Cause{failed(9)}, ""}, // the clock was set back
		{1761, []Cause{failed(9)}, "begins failed/"},
	} {
		now := begin.Add(time.Duration(step.minute) * time.Minute)
		// Each look may be of another process.
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		kept := ledger{}
		if err := json.Unmarshal(text, &kept); err != nil {
			t.Fatal(err)
		}
		for key, e := range kept {
			e.gone = l[key].gone
		}
		l = kept
		news := l.due(step.causes, now, time.Hour)
		var words []string
		for _, n := range news {
			words = append(words, string(n.State)+" "+n.key())
		}
		if got := strings.Join(words, " "); !sameWords(got, step.want) {
			t.Fatalf("minute %d: told %q, want %q", step.minute, got, step.want)
		}
		l.told(news, now)
	}
}

func sameWords(a, b string) bool {
	count := func(s string) map[string]int {
		m := map[string]int{}
		for w := range strings.FieldsSeq(s) {
			m[w]++
		}
		return m
	}
	return fmt.Sprint(count(a)) == fmt.Sprint(count(b))
}

// TestARestartIsNotTheEnd: what is not there after a restart is over 5 minutes later.
func TestARestartIsNotTheEnd(t *testing.T) {
	l, now := ledger{"api_down/": {Cause: Cause{Name: "api_down"}, Told: time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC), On: true}}, time.Date(2026, 12, 1, 15, 0, 0, 0, time.UTC)
	if news := l.due(nil, now, time.Hour); len(news) != 0 {
		t.Errorf("told at once: %+v", news)
	}
	if news := l.due(nil, now.Add(quiet), time.Hour); len(news) != 1 || news[0].State != Over || !news[0].Until.Equal(now) {
		t.Errorf("told later: %+v", news)
	}
}

// TestTheLedgerIsBounded: what is over is forgotten after a day.
func TestTheLedgerIsBounded(t *testing.T) {
	l, now := ledger{}, time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	for i := range 5000 {
		l.told(l.due([]Cause{{Name: "orphans", Account: fmt.Sprint(i)}}, now, time.Hour), now)
		now = now.Add(time.Minute)
	}
	if len(l) > 24*60+10 {
		t.Errorf("it holds %d causes", len(l))
	}
}

// TestCompose: nothing that others said writes a header or a line of its own.
func TestCompose(t *testing.T) {
	n := newNotification([]News{
		{State: Begins, Cause: Cause{Name: "key_refused", What: "2 recipients wait", Why: "the API refuses the key (Clé\r\nBcc: all@example.net\r\n\r\nrefusée)", Do: "put it right", Since: time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)}},
		{State: Over, Cause: Cause{Name: "disk_low", What: "soon no mail can be queued", Why: "the disk is full"}},
	}, "relay.example.com", "v1", time.Date(2026, 12, 1, 10, 1, 0, 0, time.UTC))
	m, err := mail.ReadMessage(strings.NewReader(string(n.Compose(relay.Address{Email: "hello@mail.example.com"}, []string{"ops@example.com", "boss@example.com"}))))
	if err != nil {
		t.Fatal(err)
	}
	to, err := m.Header.AddressList("To")
	if err != nil || len(to) != 2 || m.Header.Get("Bcc") != "" || m.Header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("the header is %v, %v", m.Header, err)
	}
	const want = "This is the mail relay at relay.example.com.\n\nthe API refuses the key (Clé Bcc: all@example.net refusée)\n  2 recipients wait.\n  Since 2026-12-01 10:00 UTC.\n  What to do: put it right.\n\n" +
		"over: the disk is full\n  It was: soon no mail can be queued.\n"
	if !strings.HasPrefix(n.Text, want) || !strings.HasSuffix(n.subject(), "(and 1 more)") {
		t.Errorf("%q\n%s", n.subject(), n.Text)
	}
}
