package page

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func TestLogin(t *testing.T) {
	s := newSite(t, "")
	b := s.browser()
	for _, page := range []string{"", "queue?state=held", "mail?id=x", "settings", "export", "import"} {
		r := b.get(page)
		if to := r.header.Get("Location"); r.status != http.StatusSeeOther || !strings.HasPrefix(to, "login") {
			t.Errorf("%q without a login: %d to %q", page, r.status, to)
		}
	}
	if to := b.get("queue?state=held").header.Get("Location"); to != "login?next=queue%3Fstate%3Dheld" {
		t.Errorf("the login leads on to %q", to)
	}
	if r := b.post("login", url.Values{"token": {"s2r_wrong"}}); r.status != http.StatusUnauthorized || r.header.Get("Set-Cookie") != "" {
		t.Errorf("a wrong token: %d", r.status)
	}
	r := b.post("login", url.Values{"token": {s.tokens["read"]}, "next": {"queue?state=held"}})
	cookie := r.header.Get("Set-Cookie")
	if r.status != http.StatusSeeOther || r.header.Get("Location") != "queue?state=held" {
		t.Errorf("the login: %d to %q", r.status, r.header.Get("Location"))
	}
	for _, want := range []string{"HttpOnly", "SameSite=Strict", "Max-Age="} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie %q lacks %s", cookie, want)
		}
	}
	if b.get("").status != http.StatusOK {
		t.Error("logged in, and yet out")
	}
	secure := s.browser().post("login", url.Values{"token": {s.tokens["read"]}}, header("X-Forwarded-Proto", "https"))
	if !strings.Contains(secure.header.Get("Set-Cookie"), "; Secure") {
		t.Errorf("behind a proxy with TLS the cookie is %q", secure.header.Get("Set-Cookie"))
	}
	for _, next := range []string{"https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "logout", "nowhere", "../v1/drop", "\r\nX: y"} {
		r := s.browser().post("login", url.Values{"token": {s.tokens["read"]}, "next": {next}})
		if to := r.header.Get("Location"); to != "./" {
			t.Errorf("next %q leads to %q", next, to)
		}
	}
	b.fill("queue", url.Values{}) // has a form, by which
	if r := b.fill("", url.Values{}); r.status != http.StatusMethodNotAllowed {
		t.Errorf("POST to a page without changes: %d", r.status)
	}
	m := csrf.FindStringSubmatch(b.get("").body)
	b.post("logout", url.Values{"csrf": {m[1]}})
	if r := b.do(http.MethodGet, "", "", header("Cookie", strings.Split(cookie, ";")[0])); r.status != http.StatusSeeOther {
		t.Errorf("the cookie is good after the logout: %d", r.status)
	}
}

// A session that somebody else chose is not the one that a login begins.
func TestASessionCannotBeFixed(t *testing.T) {
	s := newSite(t, "")
	b := s.browser()
	const chosen = "smtp2rest_session=CHOSENBYTHEATTACKER0000000"
	r := b.post("login", url.Values{"token": {s.tokens["operate"]}}, header("Cookie", chosen))
	if c := r.header.Get("Set-Cookie"); c == "" || strings.Contains(c, "CHOSEN") {
		t.Errorf("the login took the cookie %q", c)
	}
	if r := s.browser().do(http.MethodGet, "", "", header("Cookie", chosen)); r.status != http.StatusSeeOther {
		t.Errorf("the chosen session is good: %d", r.status)
	}
	before := r.header.Get("Set-Cookie")
	again := s.browser().post("login", url.Values{"token": {s.tokens["operate"]}})
	if again.header.Get("Set-Cookie") == before {
		t.Error("two logins have one session")
	}
}

// Requests that other sites make a browser send change nothing and show nothing.
func TestOtherSites(t *testing.T) {
	s := newSite(t, "")
	b := s.as("operate")
	token := csrf.FindStringSubmatch(b.get("suppressions").body)[1]
	form := url.Values{"csrf": {token}, "change": {"add"}, "address": {"csrf@example.net"}}
	without := url.Values{"change": {"add"}, "address": {"csrf@example.net"}}
	for name, r := range map[string]answer{
		"no CSRF token":       b.post("suppressions", without),
		"a wrong CSRF token":  b.post("suppressions", url.Values{"csrf": {"x"}, "change": {"add"}, "address": {"csrf@example.net"}}),
		"token in the query":  b.post("suppressions?csrf="+token, without),
		"another's token":     b.post("suppressions", url.Values{"csrf": {csrf.FindStringSubmatch(s.as("operate").get("queue").body)[1]}, "change": {"add"}, "address": {"csrf@example.net"}}),
		"another Origin":      b.post("suppressions", form, header("Origin", "https://evil.example")),
		"Origin null":         b.post("suppressions", form, header("Origin", "null")),
		"a cross-site fetch":  b.post("suppressions", form, header("Sec-Fetch-Site", "cross-site")),
		"a same-site fetch":   b.post("suppressions", form, header("Sec-Fetch-Site", "same-site")),
		"a login from afar":   s.browser().post("login", url.Values{"token": {s.tokens["operate"]}}, header("Origin", "https://evil.example")),
		"DNS rebinding":       b.do(http.MethodGet, "queue", "", host("evil.example:9090")),
		"rebinding by a POST": b.post("suppressions", form, host("evil.example"), header("Origin", "http://evil.example")),
	} {
		if r.status != http.StatusForbidden && r.status != http.StatusMisdirectedRequest {
			t.Errorf("%s: answered %d", name, r.status)
		}
	}
	if r := harness.Execute(t, s.env, "", "suppressions", "show", "csrf@example.net"); r.Code == 0 {
		t.Error("one of them got through")
	}
	for _, ours := range []string{"localhost:1", "127.0.0.1", "[::1]:80", "relay.example.com", "RELAY.example.com:443"} {
		if r := b.do(http.MethodGet, "login", "", host(ours)); r.status >= 400 {
			t.Errorf("by the name %s: %d", ours, r.status)
		}
	}
	if r := b.post("suppressions", form, header("Sec-Fetch-Site", "same-origin")); r.status != http.StatusSeeOther {
		t.Errorf("our own form: %d %s", r.status, r.body)
	}
}

func TestHeadersAndPaths(t *testing.T) {
	s := newSite(t, "")
	b := s.as("read")
	h := b.get("").header
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'", "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
		"Cache-Control": "no-store", "X-Frame-Options": "DENY",
	} {
		if !strings.Contains(h.Get(name), want) {
			t.Errorf("%s is %q", name, h.Get(name))
		}
	}
	if csp := h.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") {
		t.Errorf("the policy is %q", csp)
	}
	for _, path := range []string{"../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "files/style.css", "templates/frame.html", "style.css/..", "web.go", "queue/", "v1/list", "%00", "//etc/passwd"} {
		r := b.get(path)
		if r.status == http.StatusOK || strings.Contains(r.body, "root:") {
			t.Errorf("%q: %d", path, r.status)
		}
	}
	for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
		if r := b.do(method, "queue", ""); r.status < 400 {
			t.Errorf("%s: %d", method, r.status)
		}
	}
	if r := b.do(http.MethodGet, "style.css", "", header("If-None-Match", b.get("style.css").header.Get("ETag"))); r.status != http.StatusNotModified {
		t.Errorf("a file that did not change: %d", r.status)
	}
	if got := b.do(http.MethodGet, "style.css", "", header("Accept-Encoding", "gzip")).header.Get("Content-Encoding"); got != "gzip" {
		t.Errorf("the encoding is %q", got)
	}
}

func TestRoles(t *testing.T) {
	s := newSite(t, "")
	b := s.as("read")
	if r := b.fill("settings", url.Values{}); r.status != http.StatusForbidden && r.status != http.StatusMethodNotAllowed {
		t.Errorf("POST by a reader: %d", r.status)
	}
	token := csrf.FindStringSubmatch(b.get("queue").body)[1]
	for page, form := range map[string]url.Values{
		"queue":        {"csrf": {token}, "change": {"drop"}, "which": {"all"}, "sure": {"yes"}},
		"suppressions": {"csrf": {token}, "change": {"add"}, "address": {"x@example.net"}},
		"import":       {"csrf": {token}, "text": {"x@example.net"}, "sure": {"yes"}},
	} {
		if r := b.post(page, form); r.status != http.StatusForbidden {
			t.Errorf("a reader may change %s: %d", page, r.status)
		}
	}
	// Who is taken out of the configuration is out at the next request.
	b = s.as("operate")
	at := strings.Index(s.text, "[[operator]]\nname = \"operate\"")
	harness.Rewrite(t, s.config, s.text[:at]+s.text[strings.Index(s.text, "[[operator]]\nname = \"bodies\""):])
	s.Signal(syscall.SIGHUP)
	s.Await(s.Err, `msg=reloaded`)
	if r := b.get(""); r.status != http.StatusSeeOther {
		t.Errorf("an operator who is gone: %d", r.status)
	}
	if r := s.browser().post("login", url.Values{"token": {s.tokens["operate"]}}); r.status != http.StatusUnauthorized {
		t.Errorf("the token of an operator who is gone: %d", r.status)
	}
	if s.as("read").get("").status != http.StatusOK {
		t.Error("the others are out as well")
	}
}

// Whoever tries tokens is slowed down, and who is logged in notices nothing.
func TestTenThousandWrongTokens(t *testing.T) {
	s := newSite(t, "")
	in, thief := s.as("read"), s.browser()
	count := map[int]int{}
	for range 10_000 {
		count[thief.post("login", url.Values{"token": {"s2r_GUESS"}}).status]++
	}
	if count[http.StatusUnauthorized] > 20 || count[http.StatusUnauthorized]+count[http.StatusTooManyRequests] != 10_000 {
		t.Errorf("the answers were %v", count)
	}
	if n := strings.Count(s.Err.String(), "a token for the page was wrong"); n > 20 {
		t.Errorf("the log has %d lines of it", n)
	}
	if r := in.get("queue"); r.status != http.StatusOK {
		t.Errorf("who was logged in before: %d", r.status)
	}
}

// On the unix socket the permissions decide, and it can be led to a browser by ssh -L.
func TestTheSocket(t *testing.T) {
	s := newSite(t, "")
	var dir string
	for _, v := range s.env {
		if d, ok := strings.CutPrefix(v, "SMTP2REST_DATA_DIR="); ok {
			dir = d
		}
	}
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
	}}}
	defer c.CloseIdleConnections()
	ask := func(method, path string, change ...func(*http.Request)) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost:9090"+path, strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range change {
			f(r)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if status, body := ask(http.MethodGet, "/"); status != http.StatusOK || !strings.Contains(body, "admin socket") {
		t.Errorf("the page on the socket: %d %s", status, body)
	}
	for name, change := range map[string]func(*http.Request){"another Origin": header("Origin", "https://evil.example"), "another Host": host("evil.example")} {
		for _, path := range []string{"/v1/flush", "/v1/list", "/page/queue"} {
			if status, _ := ask(http.MethodPost, path, change); status != http.StatusForbidden && status != http.StatusMisdirectedRequest {
				t.Errorf("%s with %s: %d", path, name, status)
			}
		}
	}
	if status, _ := ask(http.MethodPost, "/v1/flush"); status != http.StatusOK {
		t.Errorf("a command: %d", status)
	}
}
