package webhook

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// guide runs the handler of the provider's Python guide.
type guide struct {
	url   string
	lines *bufio.Scanner
}

func newGuide(t *testing.T) *guide {
	t.Helper()
	cmd := exec.Command(harness.Tool(t, "python3"), "testdata/guide_handler.py")
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+secret)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	g := &guide{lines: bufio.NewScanner(out)}
	if !g.lines.Scan() {
		t.Fatal("it did not start")
	}
	g.url = "http://127.0.0.1:" + g.lines.Text() + "/webhook"
	return g
}

// ask returns the answer and the decision of the guide's handler.
func (g *guide) ask(t *testing.T, c *http.Client, body, signature string) (status int, text, decision string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, g.url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if signature != "" {
		r.Header.Set(nexuspromail.SignatureHeader, signature)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || !g.lines.Scan() {
		t.Fatalf("no decision, %v", err)
	}
	return resp.StatusCode, string(answer), g.lines.Text()
}

// decision returns our handler's decision, in the words of the guide.
func decision(t *testing.T, status int, events []relay.Event) string {
	t.Helper()
	if status != 200 {
		return "refused"
	}
	store := suppress.NewMemory(0)
	list := suppress.New(suppress.Options{Settings: settings.Defaults[suppress.Settings](), Store: store})
	if err := list.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer list.Stop()
	for _, e := range events {
		if !e.Created.IsZero() {
			e.Received = e.Created // the test's events are of long ago, and old ones change nothing
		}
		if _, err := list.Take(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := store.Entries(t.Context(), suppress.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		return map[suppress.Reason]string{
			suppress.HardBounce: "suppress " + e.Address, suppress.Complaint: "suppress " + e.Address + " complaint", suppress.Unsubscribe: "unsubscribed " + e.Address,
		}[e.Reason]
	}
	return "nothing"
}

// TestAsTheGuidesHandler checks that the provider's example and our handler answer the
// same requests in the same way.
func TestAsTheGuidesHandler(t *testing.T) {
	g := newGuide(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var bodies []string
	for _, kind := range append(relay.EventTypes(), "no.such", "BOUNCED.HARD", "") {
		bodies = append(bodies, fmt.Sprintf(`{"id":"evt_1","type":%q,"created_at":"2026-05-13T10:24:31Z","data":{"message_id":"msg_1","email":"Bob@example.net","timestamp":"2026-05-13T10:24:28Z"}}`, kind))
	}
	bodies = append(bodies, "", "{", "null", "[]", "17", `"x"`, `{}`, `{"type":"bounced.hard"}`, `{"type":"bounced.hard","data":null}`, `{"type":"bounced.hard","data":{}}`,
		`{"type":["bounced.hard"],"data":{"email":"bob@example.net"}}`,
		`{"type":"complained","data":{"email":"zo\u00eb@example.net"}}`, `{"data":{"email":"bob@example.net"}}`, strings.Repeat(" ", 100_000)+hardBounce, hardBounce+"\n", "\xff\xfe")
	checked := 0
	for _, body := range bodies {
		right := nexuspromail.Sign(secret, []byte(body))
		for _, signature := range []string{right, "", strings.ToUpper(right), right[:63], right + "0", "sha256=" + right, nexuspromail.Sign("another", []byte(body)), nexuspromail.Sign(secret, []byte(body+" ")), strings.Repeat("0", 64), "é"} {
			h, k := newHandler(secret)
			status, text := ask(t, h, request("POST", "/webhook", signature, body))
			theirStatus, theirText, theirs := g.ask(t, client, body, signature)
			if ours := decision(t, status, k.all()); status != theirStatus || text != theirText || ours != theirs {
				t.Errorf("%.200q signed %q:\nguide %d %s %s\nours  %d %s %s", body, signature, theirStatus, theirText, theirs, status, text, ours)
			}
			checked++
		}
	}
	if checked < 250 {
		t.Errorf("only %d requests were compared", checked)
	}
}
