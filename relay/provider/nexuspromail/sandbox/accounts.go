package sandbox

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// newAccounts returns a sandbox for each further account. They share the address and
// nothing else: each has its own key, rate, faults, calls and events.
func newAccounts(o Options) map[string]*Server {
	accounts := map[string]*Server{}
	for name, own := range o.Accounts {
		own.Path, own.MaxBody, own.Log, own.Accounts = o.Path, o.MaxBody, o.Log, nil
		if own.Keep == 0 {
			own.Keep = o.Keep
		}
		if own.Key == "" {
			own.Key = name
		}
		accounts[name] = New(own)
	}
	return accounts
}

// Account returns the sandbox of a further account, nil if there is none of that name.
// It is not started by itself.
func (s *Server) Account(name string) *Server { return s.accounts[name] }

// SetAccountWebhook implements provider.Sandbox. It does nothing for an account that there
// is not.
func (s *Server) SetAccountWebhook(account string, w Webhook) {
	if a := s.accounts[account]; a != nil {
		a.SetWebhook(w)
	}
}

// serve passes a call on to the account whose key it has.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, call func(*Server, http.ResponseWriter, *http.Request)) {
	of := s
	for _, a := range s.accounts {
		if a.setting.Load().authorized(r) {
			of = a
		}
	}
	if of != s {
		if !of.enter() {
			reset(w)
			return
		}
		defer of.leave()
	}
	call(of, w, r)
}

// controlled returns whose pages a request asks for, and the request as that one has it:
// /sandbox/NAME/calls is /sandbox/calls of the account.
func (s *Server) controlled(r *http.Request) (*Server, *http.Request) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/sandbox/"), "/")
	a := s.accounts[name]
	if a == nil || rest == "" {
		return s, r
	}
	own := r.Clone(r.Context())
	own.URL.Path = "/sandbox/" + rest
	return a, own
}

// stopAccounts ends the further accounts.
func (s *Server) stopAccounts(ctx context.Context) error {
	var errs []error
	for _, a := range s.accounts {
		errs = append(errs, a.Stop(ctx))
	}
	return errors.Join(errs...)
}
