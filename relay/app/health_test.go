package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// A check of the storage writes, is believed for a while, keeps nobody waiting
// for a storage that hangs, and knows since when it fails.
func TestStorageCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &marks{values: map[string]string{}}
		c := newStorageCheck(m)
		defer c.end()
		want := func(when string, words string, since time.Duration, sets int) {
			t.Helper()
			at, err := c.check(context.Background())
			if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
				t.Errorf("%s: got %v, want %q", when, err, words)
			}
			if err != nil && time.Since(at) != since {
				t.Errorf("%s: for %v, want %v", when, time.Since(at), since)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.sets != sets {
				t.Errorf("%s: %d writes, want %d", when, m.sets, sets)
			}
		}
		set := func(err error, slow time.Duration) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.err, m.slow = err, slow
		}
		want("at first", "", 0, 1)
		set(errors.New("no space left on device"), 0)
		want("a moment later", "", 0, 1)
		time.Sleep(checkedFor)
		want("when it fails", "the storage cannot be written: no space left on device", 0, 2)
		time.Sleep(time.Second)
		want("while it fails", "no space left on device", time.Second, 3)
		set(nil, 0)
		want("when it works again", "", 0, 4)
		set(nil, time.Minute)
		time.Sleep(checkedFor)
		want("when it hangs", "the storage does not answer", 0, 4)
		want("while it hangs", "the storage does not answer", storagePatience, 4)
		time.Sleep(time.Minute)
		set(nil, 0)
		want("when it answered", "", 0, 5)
	})
}

func TestHealthOfADaemon(t *testing.T) {
	c := load(t, newSandbox(t).URL(), toml(t, ""))
	a, log := start(t, c)
	for _, page := range []string{admin.Livez, admin.Readyz} {
		if code, body := fetch(t, c, page); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", page, code, body)
		}
	}
	code, body := fetch(t, c, "/status")
	var s admin.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	if s.State != admin.StateFine || s.Summary != "mail flows; nothing waits" || len(s.Warnings) != 0 {
		t.Errorf("status: %+v", s)
	}
	if err := a.Alive(t.Context()); err != nil {
		t.Errorf("Alive: %v", err)
	}
	// A client that is in the middle of its mail keeps the daemon from ending.
	cl := dial(t, a.Addrs()[0].String())
	cl.data("bob@example.net")
	ended := make(chan error, 1)
	go func() { ended <- stop(a, patience) }()
	until(t, func() bool { code, body = fetch(t, c, admin.Readyz); return code != http.StatusOK })
	if body != "stopping\n" {
		t.Errorf("readyz at the end: %d %q", code, body)
	}
	if code, body := fetch(t, c, admin.Livez); code != http.StatusOK {
		t.Errorf("livez at the end: %d %q", code, body)
	}
	if err := a.Alive(t.Context()); err != nil {
		t.Errorf("Alive at the end: %v", err)
	}
	cl.send(firstHalf + secondHalf)
	cl.want("250 ")
	_ = cl.conn.Close()
	if err := <-ended; err != nil {
		t.Errorf("Stop: %v\n%s", err, log)
	}
}

// until asks again and again, which a page over a socket slows down by itself.
func until(t *testing.T, f func() bool) {
	t.Helper()
	for begin := time.Now(); !f(); {
		if time.Since(begin) > patience {
			t.Fatal("it does not come to it")
		}
	}
}

// What the API does not take at once is answered 452 when the queue or its disk is
// full: nobody should send mail here then.
func TestNotReadyWithoutRoom(t *testing.T) {
	for name, tt := range map[string]struct{ settings, reason string }{
		"disk":  {"min_free = \"1048576GiB\"", "are kept free"},
		"mails": {"max_mails = 1", "queue.max_mails"},
		"bytes": {"max_size = \"1MiB\"", "queue.max_size"},
	} {
		t.Run(name, func(t *testing.T) {
			c := load(t, "http://127.0.0.1:9/api", toml(t, tt.settings+"\n[delivery]\nwait = \"0s\""))
			a, _ := start(t, c)
			if name != "disk" {
				if code, body := fetch(t, c, admin.Readyz); name == "mails" && code != http.StatusOK {
					t.Errorf("with room: %d %q", code, body)
				}
				handOver(t, a, "bob@example.net")
			}
			if code, body := fetch(t, c, admin.Readyz); code != http.StatusServiceUnavailable || !strings.Contains(body, tt.reason) {
				t.Errorf("without room: %d %q", code, body)
			}
			if code, body := fetch(t, c, admin.Livez); code != http.StatusOK {
				t.Errorf("livez: %d %q", code, body)
			}
		})
	}
}

// Without a queue there is no data directory, and status and health all the
// same: on a socket of its own, and on an address when one is set.
func TestHealthWithoutAQueue(t *testing.T) {
	dir, err := os.MkdirTemp("", "adm") // a test's own directory is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	c := load(t, newSandbox(t).URL(), "[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\nmode = \"none\"\n[admin]\naddress = \"127.0.0.1:0\"\n")
	c.Admin.RuntimeDir = filepath.Join(dir, "smtp2rest")
	a, log := start(t, c)
	socket := AdminSocket(c)
	if want := filepath.Join(dir, "smtp2rest", "admin.sock"); socket != want {
		t.Errorf("the socket is %s, want %s", socket, want)
	}
	client, err := admin.Dial(t.Context(), socket)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	s, err := client.Status(t.Context())
	if err != nil || s.State != admin.StateFine {
		t.Errorf("status: %+v, %v", s, err)
	}
	if _, err := client.List(t.Context(), admin.Filter{}); !errors.Is(err, admin.ErrNoQueue) {
		t.Errorf("list: %v", err)
	}
	resp, err := http.Get(fmt.Sprintf("http://%s%s", a.running.admin.addr(), admin.Readyz))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	http.DefaultClient.CloseIdleConnections()
}

// What is wrong with the storage is in the words of the status.
func TestStatusOfADiskThatIsFull(t *testing.T) {
	c := load(t, newSandbox(t).URL(), toml(t, "min_free = \"1048576GiB\""))
	start(t, c)
	_, body := fetch(t, c, "/status")
	var s admin.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	if s.State != admin.StateDegraded || !strings.Contains(s.Summary, "MiB are kept free; what the API does not take at once is answered 452; nothing is lost") {
		t.Errorf("%+v", s)
	}
}

func TestStatusOfAQueueThatIsNearlyFull(t *testing.T) {
	c := load(t, newSandbox(t).URL(), toml(t, "max_mails = 1\n[delivery]\nretry_first = \"1h\"\nretry_max = \"1h\""))
	a, _ := start(t, c)
	handOver(t, a, "down@example.net")
	_, body := fetch(t, c, "/status")
	if !strings.Contains(body, `"state":"degraded"`) || !strings.Contains(body, "the queue holds 1 of the 1 waiting mails that queue.max_mails allows") {
		t.Error(body)
	}
}

// TestStatusOfFailedMail: mail that was given up does not read as mail that waits, and
// keeps no other out.
func TestStatusOfFailedMail(t *testing.T) {
	box := newSandbox(t)
	c := load(t, box.URL(), toml(t, "max_mails = 1\n[delivery]\nwait = \"0s\""))
	a, _ := start(t, c)
	if got := handOver(t, a, "invalid@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
		t.Fatal(got)
	}
	body := ""
	for begin := time.Now(); !strings.Contains(body, `"waiting":0,"sending":0,"held":0,"sent":1,"failed":1`); _, body = fetch(t, c, "/status") {
		if time.Since(begin) > patience {
			t.Fatal(body)
		}
	}
	if strings.Contains(body, "queue.max_mails allows") || strings.Contains(body, "find out why mail waits") || !strings.Contains(body, "then retry or drop them") {
		t.Error(body)
	}
	if code, body := fetch(t, c, "/readyz"); code != http.StatusOK {
		t.Error(body)
	}
	if got := handOver(t, a, "bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
		t.Error(got)
	}
}

// Failed mail that nobody looks at is warned of, and that it is removed one day.
func TestWarningsOfMuchFailedMail(t *testing.T) {
	stats := queue.Stats{Mails: manyFailed + 1, FailedMails: manyFailed}
	for keep, want := range map[time.Duration]string{0: "10000 mails failed, and are kept until they are dropped", time.Hour: "10000 mails failed, and are kept for queue.keep_failed"} {
		got := fullWarnings(stats, config.Queue{Options: queue.Options{MaxMails: 10}, KeepFailed: keep})
		if len(got) != 1 || got[0].Why != want || got[0].Level != admin.LevelWarning {
			t.Errorf("%+v", got)
		}
	}
}

// An address that was asked for and cannot be had must not be missed without a
// word.
func TestAnAdminAddressThatIsTaken(t *testing.T) {
	first, _ := start(t, load(t, newSandbox(t).URL(), toml(t, "")))
	a, _ := newApp(load(t, newSandbox(t).URL(), toml(t, fmt.Sprintf("[admin]\naddress = %q", first.Addrs()[0]))))
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "this daemon itself uses this port; name a free one in admin.address") {
		t.Errorf("Start: %v", err)
	}
}
