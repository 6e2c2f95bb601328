package webhook

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// TestAThousandEventsASecond sends events from 50 connections, with repeats and
// forgeries among them. Each event must be stored before its answer. Answers must be
// right, nothing may be lost, and memory may not grow. SMTP2REST_LOAD is its length in
// seconds.
func TestAThousandEventsASecond(t *testing.T) {
	const connections, rate = 50, 1000
	length := 3 * time.Second
	if s, err := time.ParseDuration(os.Getenv("SMTP2REST_LOAD")); err == nil {
		length = s
	}
	dir := t.TempDir()
	disk, err := store.Open(t.Context(), store.SQLite(dir), store.Options{Part: store.OnlyRecords})
	if err != nil {
		t.Fatal(err)
	}
	list := suppress.New(suppress.Options{Settings: settings.Defaults[suppress.Settings](), Store: disk.Records})
	if err := list.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerOptions{Address: "127.0.0.1:0", Handler: NewHandler(Options{Settings: Settings{Secrets: []string{secret}, Path: "/webhook"}, Provider: nexuspromail.Events{}, Taker: list})})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, url: "http://" + s.Addr().String() + "/webhook", client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}}
	l.run(connections, rate, length/3) // warms up
	before := heap()
	l.took = nil
	l.run(connections, rate, length)
	grown := int64(heap()) - int64(before)
	l.client.CloseIdleConnections()
	end(t, s, patience)

	events := l.sent.Load()
	slices.Sort(l.took)
	t.Logf("%d events, %d repeats, %d forgeries at %.0f a second; answered in %s (median), %s (99th of 100); memory grew by %d KiB, %d for each event",
		events, l.repeats.Load(), l.forged.Load(), float64(len(l.took))/length.Seconds(), l.took[len(l.took)/2], l.took[len(l.took)*99/100], grown>>10, grown/events)
	bounced := 0
	for i := range events {
		_, known := list.Lookup(fmt.Sprintf("recipient%d@example.net", i), time.Now())
		if known != (i%2 == 0) {
			t.Fatalf("event %d: suppressed is %t", i, known)
		}
		if known {
			bounced++
		}
	}
	list.Stop()
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if left := kept(t, dir, events); left != events {
		t.Errorf("%d of %d events are kept", left, events)
	}
	// What a suppressed address takes in the index; and, however long it lasts, what
	// the connections hold and the index has in reserve at that moment.
	const held = 1 << 20
	if perAddress := (grown - held) / int64(bounced); perAddress > 400 {
		t.Errorf("memory grew by %d bytes for each address", perAddress)
	}
	if got := float64(len(l.took)) / length.Seconds(); got < rate*9/10 {
		t.Errorf("only %.0f requests a second", got)
	}
}

// kept counts the events that are there after a restart.
func kept(t *testing.T, dir string, n int64) (found int64) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "records.db")); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{Part: store.OnlyRecords})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		fresh, err := s.Records.TakeEvent(context.Background(), relay.Event{ID: fmt.Sprintf("evt_%d", i)}, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if !fresh {
			found++
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return found
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// load sends events.
type load struct {
	t      *testing.T
	url    string
	client *http.Client

	sent, repeats, forged atomic.Int64

	mu   sync.Mutex
	took []time.Duration
}

// run sends rate requests a second from several connections.
func (l *load) run(connections, rate int, length time.Duration) {
	work := make(chan struct{})
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for range work {
				l.one()
			}
		})
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for done := 0; done < int(length.Seconds()*float64(rate)); {
		<-tick.C
		for due := int(time.Since(begin).Seconds() * float64(rate)); done < due; done++ {
			work <- struct{}{}
		}
	}
	close(work)
	wg.Wait()
}

func (l *load) one() {
	switch rand.IntN(20) {
	case 0, 1:
		if n := l.sent.Load() - 200; n > 0 {
			l.repeats.Add(1)
			l.post(rand.Int64N(n), secret, 200)
			return
		}
	case 2:
		l.forged.Add(1)
		l.post(-1, "another", 401)
		return
	}
	l.post(l.sent.Add(1)-1, secret, 200)
}

func (l *load) post(n int64, key string, want int) {
	kind := [2]string{"bounced.hard", "delivered"}[n&1]
	body := fmt.Sprintf(`{"id":"evt_%d","type":%q,"created_at":%q,"data":{"message_id":"msg_%[1]d","email":"Recipient%[1]d@example.net",`+
		`"timestamp":%[3]q,"bounce_code":"550","bounce_reason":"5.1.1 The email account that you tried to reach does not exist"}}`, n, kind, time.Now().UTC().Format(time.RFC3339))
	r, err := http.NewRequest(http.MethodPost, l.url, strings.NewReader(body))
	if err != nil {
		l.t.Error(err)
		return
	}
	r.Header.Set(nexuspromail.SignatureHeader, nexuspromail.Sign(key, []byte(body)))
	begin := time.Now()
	resp, err := l.client.Do(r)
	if err != nil {
		l.t.Error(err)
		return
	}
	text, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err != nil || cerr != nil || resp.StatusCode != want || want == 200 && len(text) > 0 {
		l.t.Errorf("%d %s, %v, want %d", resp.StatusCode, text, err, want)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, time.Since(begin))
}
