// Package web is the page for operators: it shows and does in a browser what the commands
// status, trace, queue and suppressions show and do. Like them it asks the interfaces of
// relay/admin. It keeps no state but the logins.
//
// All pages are at one level below Path, and every link is relative. So a reverse proxy
// may serve them below any prefix without a setting. They work without JavaScript,
// which only adds the live counters.
package web

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Path is the path below which all pages are. Nothing but pages is below it.
const Path = admin.PagePath

// Options are the options of New.
type Options struct {
	Admin        admin.Admin
	History      admin.History
	Suppressions admin.Suppressions
	Facts        func() Facts // what the relay is made from
	Log          *slog.Logger // for who did what; nil: none
}

// Role says what somebody may do. A greater one may do all that a lesser one may.
type Role int

// The roles.
const (
	Read    Role = iota + 1 // see everything but the content of mail
	Operate                 // and change the queue and the suppressions
	Bodies                  // and see the content of mail
)

// Roles returns the names of all roles, from the least one.
func Roles() []string { return []string{"read", "operate", "bodies"} }

// RoleOf returns the role with a name; 0 if there is none.
func RoleOf(name string) Role { return Role(slices.Index(Roles(), name) + 1) }

func (r Role) String() string {
	if r < Read || r > Bodies {
		return "none"
	}
	return Roles()[r-1]
}

// Operator is somebody who may log in.
type Operator struct {
	Name string
	Role Role
	Hash string // of the token; see Hash
}

// Access says who may see the pages.
type Access struct {
	// Open is the name under which everybody who reaches the pages acts, with every
	// role and without a login; "" is none. It is for the unix socket, whose
	// permissions decide, and for a sandbox.
	Open      string
	Operators []Operator
	// Hosts are further names of this server. Addresses and localhost always are.
	Hosts []string
}

// Site is all pages.
type Site struct {
	opt      Options
	files    map[string]file
	render   *renderer
	sessions *sessions
	attempts *attempts
	openCSRF string // of forms where nobody logs in
}

// New returns a Site.
func New(o Options) *Site {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Site{opt: o, files: loadFiles(), render: newRenderer(), sessions: newSessions(), attempts: newAttempts(), openCSRF: random()}
}

// page is one page. GET shows it and POST changes something.
type page struct {
	name  string // the last part of its address; "" is the first page
	title string
	nav   bool // it is in the menu
	role  Role // that GET needs
	show  func(*visit) error
	act   func(*visit) error // nil: there is nothing to change; needs Operate
	form  int64              // the most bytes of a form; 0: maxForm
	long  bool               // show may take longer than showTime
}

// pages lists every page. A new one is a line here, a function and a template.
func (s *Site) pages() []page {
	return []page{
		{name: "", title: "Overview", nav: true, role: Read, show: s.overview},
		{name: "queue", title: "Queue", nav: true, role: Read, show: s.list, act: s.changeQueue},
		{name: "suppressions", title: "Suppressions", nav: true, role: Read, show: s.suppressions, act: s.changeSuppressions},
		{name: "import", title: "Import suppressions", role: Operate, show: s.askImport, act: s.importList, form: maxImport},
		{name: "export", title: "Export suppressions", role: Read, show: s.export, long: true},
		{name: "settings", title: "Settings", nav: true, role: Read, show: s.settings},
		{name: "search", title: "Search", role: Read, show: s.search},
		{name: "mail", title: "Mail", role: Read, show: s.mail},
		{name: "content", title: "Content", role: Bodies, show: s.content},
		{name: "logout", title: "Log out", role: Read, show: s.askLogout, act: s.logout},
	}
}

// Handler answers a browser. access is asked at each request.
func (s *Site) Handler(access func() Access) http.Handler {
	pages := map[string]page{}
	for _, p := range s.pages() {
		pages[p.name] = p
	}
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		a := access()
		name, below := strings.CutPrefix(r.URL.Path, Path)
		switch {
		case !KnownHost(r.Host, a.Hosts):
			http.Error(w, "This is not one of the names of this server. Ask for it by its address, or add the name to admin.hosts.", http.StatusMisdirectedRequest)
		case cross.Check(r) != nil:
			http.Error(w, "The request came from a page of another site.", http.StatusForbidden)
		case !below && (r.URL.Path == "/" || r.URL.Path+"/" == Path):
			relocate(w, "page/", http.StatusFound)
		case s.serveFile(w, r, name):
		default:
			v := &visit{site: s, w: w, r: r, access: a, page: pages[name]}
			if _, known := pages[name]; !below || !known && name != "login" {
				v.page.title = "Not found"
				v.fail(http.StatusNotFound, errors.New("there is no such page"))
				return
			}
			v.serve(name)
		}
	})
}

// secure sets the headers that hold for every answer. Origin would be missing with
// no-referrer, so same-origin it is: no other site learns anything from it, either.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "+
		"frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// KnownHost reports whether a Host header names this machine: by an address, as
// localhost or by one of the names. Otherwise a page of another site could read these
// pages by a name of its own that leads here (DNS rebinding).
func KnownHost(host string, names []string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	_, err = netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil || strings.EqualFold(name, "localhost") ||
		slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// relocate leads to a relative address. http.Redirect would make it absolute, and so
// lose the prefix of a proxy.
func relocate(w http.ResponseWriter, to string, status int) {
	w.Header().Set("Location", to)
	w.WriteHeader(status)
}

// visit is one request of a browser.
type visit struct {
	site   *Site
	w      http.ResponseWriter
	r      *http.Request
	access Access
	page   page
	who    who
}

// What bounds a request, in bytes. A token comes from anybody, and is kept in memory
// before it is known whose it is; the largest of the other forms names admin.MaxPage
// recipients.
const (
	maxToken  = 8 << 10
	maxForm   = 1 << 20
	maxImport = 4 << 20 // a list of suppressions
)

// showTime bounds how long a page asks the store.
const showTime = 30 * time.Second

func (v *visit) serve(name string) {
	get := v.r.Method == http.MethodGet || v.r.Method == http.MethodHead
	if !get && v.r.Method != http.MethodPost {
		v.w.Header().Set("Allow", "GET, HEAD, POST")
		v.fail(http.StatusMethodNotAllowed, errors.New("a page takes GET and POST"))
		return
	}
	if name == "login" {
		v.page.form = maxToken
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, cmp.Or(v.page.form, maxForm))
	if name == "login" {
		v.site.login(v)
		return
	}
	var in bool
	if v.who, in = v.site.identify(v.access, v.r); !in {
		v.askLogin(get)
		return
	}
	do, needs := v.page.show, v.page.role
	if !get {
		do = v.page.act
		if name != "logout" {
			needs = max(needs, Operate)
		}
	}
	switch {
	case do == nil:
		v.fail(http.StatusMethodNotAllowed, errors.New("there is nothing to change on this page"))
		return
	case v.who.role < needs:
		v.refuse(errors.New("this needs the role " + needs.String() + ", and yours is " + v.who.role.String()))
		return
	}
	if err := v.parse(); err != nil {
		v.fail(formStatus(err), err)
		return
	}
	if !get && !same(v.r.PostForm.Get("csrf"), v.who.csrf) {
		v.refuse(errors.New("the form is too old: go back, reload the page and try again"))
		return
	}
	if get && !v.page.long {
		ctx, cancel := context.WithTimeout(v.r.Context(), showTime)
		defer cancel()
		v.r = v.r.WithContext(ctx)
	}
	if err := do(v); err != nil {
		if !get {
			v.site.opt.Log.Warn("a change by an operator failed", "operator", v.who.name, "page", v.page.name, "cause", clip(err.Error()))
		}
		v.fail(statusOf(err), err)
	}
}

// refuse answers an operator who may not do this, and logs it.
func (v *visit) refuse(why error) {
	v.site.opt.Log.Warn("an operator was refused", "operator", v.who.name, "page", v.page.name, "method", v.r.Method, "cause", why)
	v.fail(http.StatusForbidden, why)
}

// parse reads the form. A file comes in parts.
func (v *visit) parse() error {
	if strings.HasPrefix(v.r.Header.Get("Content-Type"), "multipart/form-data") {
		return v.r.ParseMultipartForm(maxImport) // all of it fits into memory
	}
	return v.r.ParseForm()
}

// askLogin leads to the login, and from there back to the page.
func (v *visit) askLogin(get bool) {
	if !get {
		v.fail(http.StatusUnauthorized, errors.New("you are not logged in any more"))
		return
	}
	to := "login"
	if here := v.here(); here != "./" {
		to += "?next=" + url.QueryEscape(here)
	}
	relocate(v.w, to, http.StatusSeeOther)
}

// here is the relative address of the page with its query.
func (v *visit) here() string {
	here := "./"
	if v.page.name != "" {
		here = v.page.name
	}
	if q := v.r.URL.RawQuery; q != "" {
		here += "?" + q
	}
	return here
}

// goTo leads to another page after a change, so that a reload does not repeat it.
func (v *visit) goTo(page string, query url.Values) error {
	if len(query) > 0 {
		page += "?" + query.Encode()
	}
	relocate(v.w, page, http.StatusSeeOther)
	return nil
}

// audit logs who changed what. A line has no more than the beginning of a long text.
func (v *visit) audit(change string, attrs ...any) {
	for i, a := range attrs {
		if text, ok := a.(string); ok {
			attrs[i] = clip(text)
		}
	}
	v.site.opt.Log.Info("an operator used the page", append([]any{"operator", v.who.name, "change", change}, attrs...)...)
}

// maxLogged bounds a text of an operator's in a line of the log, in bytes.
const maxLogged = 500

func clip(text string) string {
	if len(text) <= maxLogged {
		return text
	}
	return strings.ToValidUTF8(text[:maxLogged], "") + "…"
}

// formStatus is the status for a form that cannot be read.
func formStatus(err error) int {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// statusOf is the status for an error of relay/admin.
func statusOf(err error) int {
	switch {
	case errors.Is(err, errTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, queue.ErrNotFound), errors.Is(err, admin.ErrNotSuppressed):
		return http.StatusNotFound
	case errors.Is(err, admin.ErrBadRequest), errors.Is(err, admin.ErrNothingSelected), errors.Is(err, admin.ErrAmbiguous):
		return http.StatusBadRequest
	case errors.Is(err, queue.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, admin.ErrNoQueue), errors.Is(err, admin.ErrNoHistory):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}
