package sandbox

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"
)

// send answers a call to the API. The call is on record before its answer goes
// out, so that who has the answer finds the call.
func (s *Server) send(w http.ResponseWriter, r *http.Request) {
	s.ledger.flight(+1)
	defer s.ledger.flight(-1)
	begun := time.Now()
	c := &Call{Time: begun, Remote: r.RemoteAddr, IdempotencyKey: r.Header.Get("Idempotency-Key")}
	set := s.setting.Load()

	body, tooLarge, err := readBody(r, s.opts.MaxBody)
	c.Body = body
	a := answer{end: endReset, code: "aborted", message: "the client left in the middle of its request"}
	if err == nil {
		a = s.judge(r, set, c, tooLarge)
		if !s.pause(set.Latency + a.wait) {
			a = answer{end: endReset, code: "aborted", message: "the sandbox was stopped"}
		}
	}
	c.Status = a.statusSent()
	c.Error = strings.TrimSuffix(a.code+": "+a.message, ": ")
	c.Took = time.Since(begun)
	sent := s.ledger.settle(c, a.takes(), set.Idempotent)
	s.log(r, c)
	if sent {
		s.herald.tell(*c, s.spells.events(c.To))
	}

	switch a.end {
	case endHang:
		select {
		case <-r.Context().Done():
		case <-s.quit:
		}
		reset(w)
	case endReset:
		reset(w)
	default:
		a.write(w, c.MessageID, set.RetryAfterDate)
	}
}

// judge makes a call's answer. The order of the checks is part of the
// sandbox's behaviour: what is wrong with a call is told before what is wrong
// with the account, and that before what the API suffers from.
func (s *Server) judge(r *http.Request, set *setting, c *Call, tooLarge bool) answer {
	switch {
	case r.URL.Path != s.path:
		return answer{status: http.StatusNotFound, code: "not_found", message: "there is no " + shorten(r.URL.Path)}
	case r.Method != http.MethodPost:
		return answer{status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: "use POST", allow: http.MethodPost}
	case !set.authorized(r):
		return answer{status: http.StatusUnauthorized, code: "unauthorized", message: "the API key is wrong or missing"}
	}
	limited, retry := set.limited(time.Now())
	switch {
	case tooLarge:
		return answer{status: http.StatusRequestEntityTooLarge, code: "too_large", message: "the body is too large"}
	case !isJSON(r.Header.Values("Content-Type")):
		return answer{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", message: "Content-Type must be application/json"}
	}
	p, err := parse(c.Body)
	c.To, c.From, c.Subject = p.to, p.from, p.subject
	if err != nil {
		return refusal(err)
	}
	if s.ledger.conflict(c.IdempotencyKey, c.To) && set.Idempotent {
		return answer{status: http.StatusUnprocessableEntity, code: "validation", message: "Idempotency-Key was used for another recipient"}
	}
	if limited {
		return tooMany(retry)
	}
	return s.misfortune(set, c.To)
}

// misfortune is what happens to a call that has nothing wrong with it.
func (s *Server) misfortune(set *setting, to string) answer {
	if set.outage != nil {
		return *set.outage
	}
	if a, unlucky := s.draw(set); unlucky {
		return a
	}
	f, ok := s.spells.forces(to[:strings.LastIndexByte(to, '@')])
	if !ok || f.times > 0 && s.ledger.try(to) > f.times {
		return answer{}
	}
	return f.answer
}

// draw decides whether a call is one of the fractions that fail.
func (s *Server) draw(set *setting) (answer, bool) {
	if set.Fail429 == 0 && set.Fail500 == 0 {
		return answer{}, false
	}
	s.diceMu.Lock()
	x := s.dice.r.Float64()
	s.diceMu.Unlock()
	switch {
	case x < set.Fail429:
		return tooMany(time.Second), true
	case x < set.Fail429+set.Fail500:
		return answer{status: http.StatusInternalServerError, code: "internal", message: "something went wrong"}, true
	}
	return answer{}, false
}

func tooMany(retry time.Duration) answer {
	return answer{status: http.StatusTooManyRequests, code: "rate_limited", message: "too many requests", retryAfter: retry}
}

func refusal(err error) answer {
	if f := (*fieldError)(nil); errors.As(err, &f) {
		return answer{status: http.StatusUnprocessableEntity, code: "validation", message: f.text}
	}
	return answer{status: http.StatusBadRequest, code: "bad_request", message: err.Error()}
}

// authorized compares the key. The scheme's case does not matter (RFC 9110,
// section 11.1).
func (s *setting) authorized(r *http.Request) bool {
	all := r.Header.Values("Authorization")
	if len(all) != 1 {
		return false
	}
	scheme, key, _ := strings.Cut(all[0], " ")
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare([]byte(key), s.bearer) == 1
}

// limited takes a token, and tells when the next one comes if there is none.
func (s *setting) limited(now time.Time) (bool, time.Duration) {
	if s.limiter == nil || s.limiter.AllowN(now, 1) {
		return false, 0
	}
	// At least a second, the least that Retry-After can say: a token that came
	// between the two looks at the bucket would leave nothing to say.
	missing := 1 - s.limiter.TokensAt(now)
	return true, max(time.Second, time.Duration(missing/s.Rate*float64(time.Second)))
}

// isJSON takes application/json in UTF-8, as RFC 8259 has it.
func isJSON(values []string) bool {
	if len(values) != 1 {
		return false
	}
	if values[0] == "application/json" {
		return true
	}
	kind, params, err := mime.ParseMediaType(values[0])
	if err != nil || kind != "application/json" {
		return false
	}
	charset, given := params["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}

// readBody reads a body to its end, up to most bytes. Of a larger one it
// returns nothing but still reads on for a while: a client that is answered
// while it writes sees a broken connection in place of the 413.
func readBody(r *http.Request, most int64) (body []byte, tooLarge bool, err error) {
	const trusted = 1 << 20 // of memory on the word of a Content-Length alone
	var buf bytes.Buffer
	if n := r.ContentLength; n > 0 {
		buf.Grow(int(min(n, most, trusted)) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(r.Body, most+1))
	if err != nil || n <= most {
		return buf.Bytes(), false, err
	}
	_, err = io.CopyN(io.Discard, r.Body, 3*most)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return nil, true, err
}

// pause waits and reports whether the sandbox still runs. It goes on when the
// client has left: the provider, too, would not notice.
func (s *Server) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.quit:
		return false
	}
}

func (s *Server) log(r *http.Request, c *Call) {
	if !s.opts.Log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	s.opts.Log.LogAttrs(r.Context(), slog.LevelDebug, "call",
		slog.Int("status", c.Status), slog.String("to", c.To), slog.String("message_id", c.MessageID),
		slog.String("key", c.IdempotencyKey), slog.String("error", c.Error), slog.Duration("took", c.Took))
}
