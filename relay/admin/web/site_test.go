package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// relay answers as a relay does. What a test does not set fails.
type relay struct {
	admin.Admin
	admin.Suppressions
	list func(context.Context, admin.Filter) (admin.Page, error)
	page func(admin.SuppressionFilter) (admin.SuppressionPage, error)
}

func (relay) Status(context.Context) (admin.Status, error)                   { return admin.Status{}, nil }
func (r relay) List(ctx context.Context, f admin.Filter) (admin.Page, error) { return r.list(ctx, f) }
func (relay) Drop(context.Context, admin.Filter) (int, error) {
	return 3, errors.New("the disk is full")
}
func (r relay) ListSuppressions(_ context.Context, f admin.SuppressionFilter) (admin.SuppressionPage, error) {
	return r.page(f)
}

// visitor is somebody who asks a Site, and its log.
type visitor struct {
	t   *testing.T
	h   http.Handler
	log bytes.Buffer
}

func newVisitor(t *testing.T, r relay, a Access) *visitor {
	v := &visitor{t: t}
	v.h = New(Options{Admin: r, Suppressions: r, Log: slog.New(slog.NewTextHandler(&v.log, nil))}).Handler(func() Access { return a })
	return v
}

func (v *visitor) ask(method, page, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+Path+page, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	v.h.ServeHTTP(w, r)
	return w
}

// fill posts a form with the CSRF token that a page shows.
func (v *visitor) fill(page string, form url.Values, change ...func(*http.Request)) *httptest.ResponseRecorder {
	v.t.Helper()
	m := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(v.ask(http.MethodGet, "import", "", change...).Body.String())
	if m == nil {
		v.t.Fatal("there is no form")
	}
	form.Set("csrf", m[1])
	return v.ask(http.MethodPost, page, form.Encode(), change...)
}

var everything = Access{Open: "test"}

// One call of List looks at a part of a long queue alone: what is behind it is found, too.
func TestAMailBehindManyOthersIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := 40
		r := relay{list: func(_ context.Context, f admin.Filter) (admin.Page, error) {
			time.Sleep(20 * time.Millisecond)
			at := 0
			_, _ = fmt.Sscan(f.Cursor, &at) // "" is the beginning
			if at == last {
				return admin.Page{Entries: []admin.Entry{{Envelope: admin.Envelope{ID: "found"}}}}, nil
			}
			return admin.Page{Cursor: fmt.Sprint(at + 1)}, nil
		}}
		v := newVisitor(t, r, everything)
		if body := v.ask(http.MethodGet, "queue?recipient=x", "").Body.String(); !strings.Contains(body, ">found</a>") {
			t.Errorf("not found: %s", body)
		}
		last = 1000 // beyond what is looked at for one page
		body := v.ask(http.MethodGet, "queue?recipient=x", "").Body.String()
		if strings.Contains(body, "Nothing in the queue matches") || !strings.Contains(body, "so far") || !strings.Contains(body, "Next page") {
			t.Errorf("it says that there is none: %s", body)
		}
	})
}

// Anybody can send a form to the login.
func TestTheLoginReadsNoMoreThanAToken(t *testing.T) {
	v := newVisitor(t, relay{}, Access{})
	read := &counting{Reader: strings.NewReader("token=" + strings.Repeat("x", 3<<20))}
	w := v.ask(http.MethodPost, "login", "", func(r *http.Request) { r.Body = io.NopCloser(read) })
	if w.Code != http.StatusRequestEntityTooLarge || read.n > 64<<10 {
		t.Errorf("answered %d after %d bytes", w.Code, read.n)
	}
}

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// A store that does not answer is not waited for for ever.
func TestAPageIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay{list: func(ctx context.Context, _ admin.Filter) (admin.Page, error) {
			<-ctx.Done()
			return admin.Page{}, ctx.Err()
		}}
		if w := newVisitor(t, r, everything).ask(http.MethodGet, "queue", ""); w.Code != http.StatusGatewayTimeout {
			t.Errorf("answered %d", w.Code)
		}
	})
}

// The log tells of what an operator was refused, and of what failed; a long text does not
// fill it.
func TestTheLogTellsWhatDidNotGo(t *testing.T) {
	token := NewToken()
	v := newVisitor(t, relay{}, Access{Operators: []Operator{{Name: "rita", Role: Read, Hash: Hash(token)}}})
	cookie := v.ask(http.MethodPost, "login", url.Values{"token": {token}}.Encode()).Result().Cookies()[0]
	as := func(r *http.Request) { r.AddCookie(cookie) }
	v.ask(http.MethodGet, "content?id=x", "", as)
	v.ask(http.MethodPost, "queue", "change=drop&which=all&sure=yes", as)
	for _, want := range []string{`operator=rita page=content method=GET`, `operator=rita page=queue method=POST`} {
		if !strings.Contains(v.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, v.log.String())
		}
	}
	v = newVisitor(t, relay{}, everything)
	w := v.fill("queue", url.Values{"change": {"drop"}, "which": {"all"}, "sender": {strings.Repeat("s", 100<<10)}, "sure": {"yes"}})
	if got := v.log.String(); w.Code != 500 || !strings.Contains(got, "change=drop recipients=3") || !strings.Contains(got, "the disk is full") || len(got) > 4<<10 {
		t.Errorf("%d; the log has %d bytes: %.2000s", w.Code, len(got), got)
	}
}

// A list that could not be read to its end does not look whole.
func TestAnExportThatFailsIsCutOff(t *testing.T) {
	r := relay{page: func(f admin.SuppressionFilter) (admin.SuppressionPage, error) {
		if f.After != "" {
			return admin.SuppressionPage{}, errors.New("the disk is gone")
		}
		return admin.SuppressionPage{Entries: []admin.Suppression{{Address: "a@example.net"}}, Next: "a@example.net"}, nil
	}}
	server := httptest.NewServer(newVisitor(t, r, everything).h)
	defer server.Close()
	resp, err := server.Client().Get(server.URL + Path + "export")
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil {
		t.Error("the list looks whole")
	}
}

// A browser sends a list again with the confirmation, with CR LF at the ends of lines.
func TestWhatCanBePreviewedCanBeImported(t *testing.T) {
	v := newVisitor(t, relay{}, everything)
	long := strings.Repeat(strings.Repeat("x", 159)+"\n", 25_700)
	w := v.fill("import", url.Values{"text": {long}})
	if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(w.Body.String(), "smtp2rest suppressions import") {
		t.Errorf("answered %d %.300s", w.Code, w.Body)
	}
}
