package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Handler serves everything that the sandbox serves, for a server of the caller's
// own. Stop ends calls that hang on it.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			reset(w)
			return
		}
		defer s.leave()
		if r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/sandbox/") {
			of, own := s.controlled(r)
			of.control(w, own)
			return
		}
		if r.URL.Path == webhooksPath {
			s.serve(w, r, (*Server).register)
			return
		}
		s.serve(w, r, (*Server).send)
	})
}

// control serves the pages beside the API. They need no key.
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /", "HEAD /":
		writeBody(w, http.StatusOK, "text/plain; charset=utf-8", []byte(s.welcome(r.Host)))
	case "GET /sandbox/calls":
		s.listCalls(w, r.URL.Query())
	case "DELETE /sandbox/calls":
		s.Reset()
		writeJSON(w, http.StatusOK, s.Stats())
	case "GET /sandbox/stats":
		writeJSON(w, http.StatusOK, s.Stats())
	case "GET /sandbox/faults":
		writeJSON(w, http.StatusOK, s.Faults())
	case "PUT /sandbox/faults":
		s.putFaults(w, r)
	default:
		complain(w, http.StatusNotFound, "there is no "+r.Method+" "+shorten(r.URL.Path)+"; see /")
	}
}

// welcome returns the page at /.
func (s *Server) welcome(host string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `This is the smtp2rest sandbox: the NexusProMail API without the mail.

Send      POST http://%s%s with Authorization: Bearer and the sandbox's key
Calls     GET /sandbox/calls?to=&status=&limit=   what came, newest last
          DELETE /sandbox/calls                   forget it
Counters  GET /sandbox/stats
Webhook   POST http://%s%s with url and events; the answer has the secret
Faults    GET /sandbox/faults, PUT /sandbox/faults with the fields to change

These recipients force an outcome, at any domain:

`, host, s.path, host, webhooksPath)
	for _, m := range MagicRecipients() {
		fmt.Fprintf(&b, "  %-34s %s\n", m.LocalPart+"@", m.What)
	}
	return b.String()
}

// listCalls answers with the remembered calls that match the query: to is an
// address, status a number, limit the number of the newest calls.
func (s *Server) listCalls(w http.ResponseWriter, query url.Values) {
	keep, err := callFilter(query)
	if err != nil {
		complain(w, http.StatusBadRequest, err.Error())
		return
	}
	list := []Call{}
	for _, c := range s.Calls() {
		if keep(c) {
			list = append(list, c)
		}
	}
	if limit, _ := strconv.Atoi(query.Get("limit")); limit > 0 && limit < len(list) {
		list = list[len(list)-limit:]
	}
	writeJSON(w, http.StatusOK, list)
}

func callFilter(query url.Values) (func(Call) bool, error) {
	for name := range query {
		v := query.Get(name)
		n, err := strconv.Atoi(v)
		switch {
		case name == "to" || v == "":
		case name != "status" && name != "limit":
			return nil, fmt.Errorf("unknown filter %q: to, status and limit are known", shorten(name))
		case err != nil || n < 0:
			return nil, fmt.Errorf("%s must be a number", name)
		}
	}
	to, status := query.Get("to"), query.Get("status")
	return func(c Call) bool {
		return (to == "" || strings.EqualFold(to, c.To)) && (status == "" || status == strconv.Itoa(c.Status))
	}, nil
}

// putFaults changes the faults that the body names and keeps the others.
func (s *Server) putFaults(w http.ResponseWriter, r *http.Request) {
	j := s.Faults().wire()
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	d.DisallowUnknownFields()
	err := d.Decode(&j)
	if err == nil {
		var f Faults
		if f, err = j.faults(); err == nil {
			err = s.SetFaults(f)
		}
	}
	if err != nil {
		complain(w, http.StatusBadRequest, err.Error())
		return
	}
	s.opts.Log.Info("faults changed", "outage", string(j.Outage), "rate", j.Rate, "latency", j.LatencyText)
	writeJSON(w, http.StatusOK, s.Faults())
}

func complain(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]string{"error": message})
}

// writeJSON answers for people: indented, and with < and > unescaped.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		status = http.StatusInternalServerError
		b.Reset()
		b.WriteString(`{"error":"the answer cannot be written as JSON"}`)
	}
	writeBody(w, status, "application/json", []byte(b.String()))
}
