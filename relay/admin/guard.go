package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
)

// Access is what is asked of those who come by TCP. The caller sees to it that
// there is a token where other machines reach the address.
type Access struct {
	Token                   string
	OpenHealth, OpenMetrics bool // those pages can be read without the token
}

// guarded lets through what a client on TCP may ask for. On the unix socket
// the file's permissions decide, and nothing of this applies.
//
// Without a token the address is this machine's alone, which is everybody on
// it: they see how the relay is, but not whose mail it has, and change
// nothing.
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

// local keeps a web page that somebody on this machine looks at from reading
// what has no token: a name of its own that leads to 127.0.0.1 is all it needs
// otherwise (DNS rebinding).
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

// bears compares digests, which have one length, in constant time.
func bears(r *http.Request, token string) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	x, y := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token))
	return ok && subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// refuse answers a call as calls are answered, and a page with the words. It hangs
// up: a connection is not kept for whoever may not ask.
func refuse(w http.ResponseWriter, r *http.Request, status int, words string) {
	w.Header().Set("Connection", "close")
	if !strings.HasPrefix(r.URL.Path, prefix) {
		http.Error(w, words, status)
		return
	}
	writeJSON(w, status, answer[struct{}]{Error: &wireError{Code: "not_allowed", Text: words}})
}
