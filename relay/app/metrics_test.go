package app

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

// fetch asks the daemon's admin socket for a page.
func fetch(t *testing.T, c *config.Config, page string) (int, string) {
	t.Helper()
	socket := filepath.Join(c.Queue.DataDir, admin.SocketName)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://smtp2rest" + page)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// What a mail does shows in a scrape over the real socket.
func TestScrape(t *testing.T) {
	box := newSandbox(t)
	c := load(t, box.URL(), toml(t, "[delivery]\nretry_first = \"15m\""))
	a, _ := start(t, c)
	for to, want := range map[string]string{
		"bob@example.net": "250 2.0.0 accepted", "invalid@example.net": "554", "down@example.net": "250 2.0.0 queued",
	} {
		cl := dial(t, a.Addrs()[0].String())
		cl.data(to)
		cl.send(firstHalf + secondHalf)
		cl.want(want)
	}
	status, body := fetch(t, c, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	for _, want := range []string{
		`smtp2rest_api_calls_total{outcome="accepted",status="2xx"} 1`,
		`smtp2rest_api_calls_total{outcome="refused",status="4xx"} 1`,
		`smtp2rest_api_calls_total{outcome="unavailable",status="5xx"} 1`,
		`smtp2rest_api_calls_total{outcome="ambiguous",status="none"} 0`,
		`smtp2rest_api_call_seconds_count{outcome="accepted"} 1`,
		`smtp2rest_queue_recipients{state="waiting"} 1`,
		`smtp2rest_queue_recipients{state="failed"} 0`,
		`smtp2rest_breaker_open{why="api_down"} 0`,
		`smtp2rest_storage_commit_changes_count 1`,
		`smtp2rest_messages_total{outcome="accepted"} 1`,
		`smtp2rest_messages_total{outcome="queued"} 1`,
		`smtp2rest_messages_total{outcome="refused"} 1`,
		`smtp2rest_message_reply_seconds_count{outcome="queued"} 1`,
		`smtp2rest_recipients_total{end="sent",way="direct"} 1`,
		`smtp2rest_recipients_total{end="refused",way="direct"} 1`,
		`smtp2rest_recipients_total{end="sent",way="queue"} 0`,
		`smtp2rest_recipient_settled_seconds_count{result="sent"} 1`,
		`smtp2rest_bounces_total{sender="told"} 0`,
		`smtp2rest_build_info{go="go1.`,
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("there is no %s", want)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}
