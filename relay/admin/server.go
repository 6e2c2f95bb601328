package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// ServerOptions are the options of NewServer.
type ServerOptions struct {
	Admin        Admin
	Suppressions Suppressions // nil: there are no calls for it
	Forwards     Forwards     // nil: there are no calls for it
	History      History      // nil: there are no calls for it
	Health       Health
	Metrics      prometheus.Gatherer // for /metrics; nil: there is no such page
	// Page answers browsers at "/" and below PagePath, and says itself who may see it;
	// nil: there are no such pages.
	Page http.Handler

	// Path is the path of the socket, of at most some 100 bytes; that is the kernel's
	// limit. Whoever can open the socket can do everything, so its mode is 0600 and
	// its owner is the daemon's user.
	Path string

	// Address is host:port, and is used instead of Path. Access says who may ask there.
	Address  string
	Listener net.Listener // on Address; nil: Start binds it
	Access   Access       // Prepare can change it
	// CertFile and KeyFile are PEM files for https on Address; both or neither.
	CertFile, KeyFile string

	Log *slog.Logger // nil: none
}

// limits bounds what clients can use. On TCP anybody can connect, and a page of metrics
// needs some 300 KB: 64 connections need some 20 MB. On the socket there are only
// operators, and they may be slow, as with a pager.
func (o ServerOptions) limits() webserver.Limits {
	if o.Address == "" {
		return webserver.Limits{RequestTime: 30 * time.Second, WriteTime: time.Hour, IdleTime: time.Minute}
	}
	return webserver.Limits{Connections: 64, RequestTime: 30 * time.Second, WriteTime: time.Minute, IdleTime: 15 * time.Second}
}

// Server answers a Client, supervisors and monitoring on a unix socket or on TCP. Start
// removes the socket of a daemon that is dead, and fails with ErrInUse when one answers
// there; Stop removes the socket.
type Server struct {
	*webserver.Server
	access atomic.Pointer[Access]
}

// NewServer returns a Server that does nothing before Start.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{}
	s.access.Store(&o.Access)
	mux := http.NewServeMux()
	handleAdmin(mux, o.Admin)
	if o.Suppressions != nil {
		handleSuppressions(mux, o.Suppressions)
	}
	if o.Forwards != nil {
		handleForwards(mux, o.Forwards)
	}
	if o.History != nil {
		handleHistory(mux, o.History)
	}
	handlePages(mux, o)
	answers := tunnelled(mux)
	if o.Address != "" {
		answers = guarded(func() Access { return *s.access.Load() }, mux)
	}
	if o.Page != nil {
		answers = paged(o.Page, answers)
	}
	stopping := func(w http.ResponseWriter, _ *http.Request) { reply(w, struct{}{}, queue.ErrClosed) }
	s.Server = webserver.New(webserver.Options{Handler: answers, Stopping: http.HandlerFunc(stopping), Listen: o.listen,
		CertFile: o.CertFile, KeyFile: o.KeyFile, Limits: o.limits(), Log: o.Log})
	return s
}

// Prepare makes ready to apply a from the next request on, also for clients that are
// connected. It never fails.
func (s *Server) Prepare(a Access) (apply func(), err error) {
	return func() { s.access.Store(&a) }, nil
}

// Access says what a client on TCP may ask for. The caller makes sure that there is a
// token when other machines can reach the address.
type Access struct {
	Token                   string
	OpenHealth, OpenMetrics bool // these pages need no token
}

// guarded answers what a client on TCP may ask for, and refuses the rest. It is not
// used on the unix socket, where the permissions of the file decide.
//
// Without a token only this machine can reach the address, but every user of this
// machine can. They see whether the relay is well. They do not see whose mail it has,
// and cannot change anything.
func guarded(now func() Access, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := now()
		switch {
		case a.Token == "" && !local(r.Host):
			refuse(w, r, http.StatusForbidden, "ask for it by the address, or as localhost")
		case a.Token != "" && bears(r, a.Token):
			webserver.Trust(r.Context())
			h.ServeHTTP(w, r)
		case a.opens(r.URL.Path):
			h.ServeHTTP(w, r)
		case a.Token == "":
			refuse(w, r, http.StatusForbidden, "admin.address has no token, and without one shows no more than "+
				strings.Join([]string{Livez, Readyz, Metrics, status}, ", ")+"; use the unix socket")
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="smtp2rest"`)
			refuse(w, r, http.StatusUnauthorized, "the token is missing or wrong: send it as \"Authorization: Bearer …\"")
		}
	})
}

// PagePath is where the pages for browsers are.
const PagePath = "/page/"

// paged has browsers answered by page.
func paged(page, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; p == "/" || p+"/" == PagePath || strings.HasPrefix(p, PagePath) {
			page.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// tunnelled guards the unix socket where an operator leads it to a port of another
// machine, as 'ssh -L' does, and looks at it there with a browser: no page of another
// site may make that browser ask for something. Each browser sends a Host.
func tunnelled(h http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "" && !local(r.Host) || cross.Check(r) != nil {
			refuse(w, r, http.StatusForbidden, "ask for it as localhost, and not from the page of another site")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// local accepts only names of this machine. Otherwise a web page could read these pages
// by a name of its own that leads to 127.0.0.1, when somebody on this machine looks at
// it (DNS rebinding).
func local(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	_, err = netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil || name == "localhost" || name == clientHost
}

// opens reports whether a page needs no token.
func (a Access) opens(path string) bool {
	switch path {
	case Livez, Readyz:
		return a.Token == "" || a.OpenHealth
	case Metrics:
		return a.Token == "" || a.OpenMetrics
	case status:
		return a.Token == ""
	}
	return false
}

// bears reports whether a request has the token. It compares digests, because they
// have the same length, in constant time.
func bears(r *http.Request, token string) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	x, y := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token))
	return ok && subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// refuse answers a call with JSON, and a page with text, and closes the connection.
func refuse(w http.ResponseWriter, r *http.Request, status int, words string) {
	w.Header().Set("Connection", "close")
	if !strings.HasPrefix(r.URL.Path, prefix) {
		http.Error(w, words, status)
		return
	}
	writeJSON(w, status, answer[struct{}]{Error: &wireError{Code: "not_allowed", Text: words}})
}
