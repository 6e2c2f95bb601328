//go:build browser

package page

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

var shots = flag.String("page.shots", "", "the directory for screenshots of every page; \"\" is none")

// tab is a page in a browser, with everything that it does and must not.
type tab struct {
	context.Context
	t *testing.T
	s *site

	mu  sync.Mutex
	bad []string
}

// chromium opens a tab. A request to another place, a dialog, an exception or something
// that the page's own policy forbids fails the test.
func (s *site) chromium(width, height int64) *tab {
	t := s.t
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		harness.Missing(t, "chromium is not installed")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()))
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) })
	t.Cleanup(cancel)
	b := &tab{Context: ctx, t: t, s: s}
	b.do(chromedp.EmulateViewport(width, height))
	if err := chromedp.Listen(ctx, b.watch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, what := range b.bad {
			t.Error(what)
		}
	})
	return b
}

func (b *tab) watch(event any) {
	found := ""
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if u := e.Request.URL; !strings.HasPrefix(u, b.s.url) && !strings.HasPrefix(u, "data:") {
			found = "a request to " + u
		}
	case *page.EventJavascriptDialogOpening:
		found = "a dialog: " + e.Message
		go func() { _, _ = chromedp.Call(b, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{}) }()
	case *runtime.EventExceptionThrown:
		found = "an exception: " + e.ExceptionDetails.Text
	case *log.EventEntryAdded:
		if e.Entry.Source == log.EntrySourceSecurity || strings.Contains(e.Entry.Text, "Content Security Policy") {
			found = "against the policy: " + e.Entry.Text
		}
	}
	if found != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.bad = append(b.bad, found)
	}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// is evaluates an expression.
func is[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func (b *tab) open(page string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.s.url+page), chromedp.WaitVisible(chromedp.CSS("main")))
}

func (b *tab) login(role string) {
	b.t.Helper()
	b.open("login")
	b.do(chromedp.SendKeys(chromedp.CSS("#token"), b.s.tokens[role]+"\r"), chromedp.WaitVisible(chromedp.CSS(".state")))
}

func (b *tab) text() string {
	b.t.Helper()
	return is[string](b, "document.querySelector('main').innerText")
}

// shoot keeps a screenshot, in light and in dark.
func (b *tab) shoot(name string) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	for _, scheme := range []string{"light", "dark"} {
		_, err := chromedp.Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		if err != nil {
			b.t.Fatal(err)
		}
		png, err := chromedp.Run(b, chromedp.FullScreenshot(100))
		if err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(*shots, name+"-"+scheme+".png"), png, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

// hostile is what a mail can bring: as subject, names, file names and texts.
func hostile() []string {
	return []string{
		`<script>window.pwned=1;alert(1)</script>`,
		`"><img src=x onerror="window.pwned=1;alert(2)">`,
		`'"></textarea></title><svg onload=alert(3)>`,
		`<iframe src="https://evil.example/"></iframe><link rel=stylesheet href=//evil.example/x.css>`,
		`<meta http-equiv=refresh content="0;url=https://evil.example/">`,
		`javascript:alert(4)`,
		"\x1b]0;owned\x07 \u202egnp.exe \u2066x\u2069 \u0000end",
		`{{.CSRF}} ${7*7} <!--`,
	}
}

// word is an encoded word of RFC 2047.
func word(s string) string { return "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?=" }

// A mail with script, markup or control characters shows as text on every page.
func TestHostileMailsAreText(t *testing.T) {
	s := newSite(t, "")
	for i, evil := range hostile() {
		c := harness.Dial(t, s.SMTP)
		c.Do("", "220 ", "EHLO client.test", "250 ")
		sender := fmt.Sprintf(`"<img src=x onerror=alert(%d)>"@sandbox.example`, i)
		c.Do("MAIL FROM:<"+sender+">", "250 ", fmt.Sprintf(`RCPT TO:<down+%d@example.net>`, i), "250 ", `RCPT TO:<"<b>x</b>"@example.net>`, "250 ", "DATA", "354 ")
		c.Do("From: "+word(evil)+" <shop@sandbox.example>\r\nTo: down@example.net\r\nSubject: "+word(evil)+"\r\nMessage-ID: <"+strings.Map(ascii, evil)+">\r\n"+
			"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n"+strings.Map(ascii, evil)+"\r\n--b\r\n"+
			"Content-Type: application/pdf; name=\""+word(evil)+"\"\r\nContent-Disposition: attachment; filename=\""+word(evil)+"\"\r\n\r\nx\r\n--b--\r\n.", "250 ", "QUIT", "221 ")
	}
	b := s.chromium(1200, 900)
	b.login("bodies")
	mails := s.as("read").get("queue?state=any").body
	pages := []string{"queue?state=any", "queue?sender=" + `%3Cscript%3Ealert(5)%3C/script%3E`, "search?q=shop@sandbox.example", "search?q=%22%3E%3Cscript%3Ealert(6)%3C/script%3E", "queue?state=%3Cscript%3Ealert(7)%3C/script%3E",
		"suppressions?address=%22%3E%3Cimg%20src=x%20onerror=alert(8)%3E", "login?next=javascript:alert(9)", "mail?id=%3Cscript%3E", ""}
	for _, m := range ids(mails) {
		pages = append(pages, "mail?id="+m, "content?id="+m)
	}
	if len(pages) < 10+len(hostile())-2 {
		t.Fatalf("only these pages are there to look at: %v", pages)
	}
	for _, p := range pages {
		b.open(p)
		pwned, foreign := is[bool](b, `"pwned" in window`), is[bool](b, `document.querySelectorAll("main img, main script, main iframe, main svg, main link, main meta").length > 0`)
		if pwned || foreign {
			t.Errorf("%s: a mail's markup is markup", p)
		}
		if text := b.text(); strings.ContainsAny(text, "\x1b\x07\u202e\u2066") {
			t.Errorf("%s shows control characters", p)
		}
	}
	b.open("search?q=shop@sandbox.example")
	b.shoot("hostile")
}

// ascii keeps what a header can have.
func ascii(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}

// ids are the ids of the mails in a list.
func ids(list string) (all []string) {
	for _, part := range strings.Split(list, `href="mail?id=`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		if !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	return all
}

// Every page opens, wide and narrow, and nothing sticks out of a narrow one.
func TestEveryPageOpens(t *testing.T) {
	s := newSite(t, "")
	pages := []string{"", "queue", "queue?state=any", "suppressions", "import", "settings", "search?q=shop@sandbox.example"}
	wide, narrow := s.chromium(1200, 800), s.chromium(360, 740)
	narrow.open("login")
	narrow.shoot("login-narrow")
	wide.login("operate")
	narrow.login("operate")
	wide.shoot("empty")
	for _, to := range []string{"bob@example.net", "suppressed@example.net", "hardbounce@example.net", "invalid@example.net", "down@example.net", "down+9@example.net", "eve@example.net,suppressed+other@example.net"} {
		s.send(to, "Your order for "+to)
	}
	pages = append(pages, "mail?id="+ids(s.as("read").get("queue").body)[0])
	for _, p := range pages {
		name, _, _ := strings.Cut(p, "?")
		for kind, b := range map[string]*tab{"wide": wide, "narrow": narrow} {
			b.open(p)
			if over := is[float64](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("%q sticks out by %v px, %s", p, over, kind)
			}
			b.shoot(name + "-" + kind)
		}
	}
	wide.open("queue")
	wide.do(chromedp.Click(chromedp.CSS(`th.pick input`)), chromedp.Click(chromedp.CSS(`button[value=hold]`)), chromedp.WaitVisible(chromedp.CSS(`form a.button`)))
	wide.shoot("confirm")
	wide.do(chromedp.Click(chromedp.CSS(`main button.primary`)), chromedp.WaitVisible(chromedp.CSS(`.notice.good`)))
	if q := s.queue(); strings.Contains(q, "waiting") || !strings.Contains(q, "held down@example.net") {
		t.Errorf("after a hold of all on the page the queue has %q", q)
	}
}
