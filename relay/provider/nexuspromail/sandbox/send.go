package sandbox

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// send answers a call to the API. It records the call before it answers, so that
// whoever has the answer finds the call.
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
		a = s.decide(r, set, c, tooLarge)
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
		s.notifier.enqueue(*c, s.magic.events(c.To))
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

// decide decides how to answer a call. The order of the checks is part of the
// sandbox's behaviour: first faults of the call, then limits of the account, then
// faults of the API.
func (s *Server) decide(r *http.Request, set *setting, c *Call, tooLarge bool) answer {
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
	p, err := parse(c.Body, s.opts.Fields...)
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
	return s.fault(set, c.To)
}

// fault decides how the API fails for a call that has nothing wrong with it.
func (s *Server) fault(set *setting, to string) answer {
	if set.outage != nil {
		return *set.outage
	}
	if a, unlucky := s.draw(set); unlucky {
		return a
	}
	f, ok := s.magic.lookUp(to[:strings.LastIndexByte(to, '@')])
	if !ok || f.times > 0 && s.ledger.try(to) > f.times {
		return answer{}
	}
	return f.answer
}

// draw decides whether a call is one of those that fail at random.
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

// authorized checks the key. The case of the scheme does not matter (RFC 9110,
// section 11.1).
func (s *setting) authorized(r *http.Request) bool {
	all := r.Header.Values("Authorization")
	if len(all) != 1 {
		return false
	}
	scheme, key, _ := strings.Cut(all[0], " ")
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare([]byte(key), s.bearer) == 1
}

// limited takes a token. If there is none, it returns when the next one comes.
func (s *setting) limited(now time.Time) (bool, time.Duration) {
	if s.limiter == nil || s.limiter.AllowN(now, 1) {
		return false, 0
	}
	// At least a second, the least that Retry-After can say. A token may have come
	// between the two looks at the bucket.
	missing := 1 - s.limiter.TokensAt(now)
	return true, max(time.Second, time.Duration(missing/s.Rate*float64(time.Second)))
}

// isJSON accepts application/json in UTF-8 (RFC 8259).
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

// readBody reads a body, up to most bytes. Of a larger one it returns nothing, but
// reads on for a while: a client that is answered while it still writes would see a
// broken connection instead of the 413.
func readBody(r *http.Request, most int64) (body []byte, tooLarge bool, err error) {
	const trusted = 1 << 20 // allocate at most this much for a mere Content-Length
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

// pause waits and reports whether the sandbox still runs. It goes on if the client
// hangs up: the provider would not notice either.
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

// answer is what happens to one call. The zero value takes the mail and answers
// 200 with a message_id.
type answer struct {
	status     int           // of a refusal; 0 is a 200
	code       string        // "error" in the JSON
	message    string        // "message" in the JSON; "" leaves it out
	retryAfter time.Duration // of a 429
	allow      string        // of a 405
	location   string        // of a 3xx
	page       string        // HTML instead of JSON
	empty      bool          // 200 with {}
	wait       time.Duration // before anything else happens
	end        ending
	events     []string // sent to the webhook after "sent"; none is "delivered"
	lost       bool     // the mail is taken although the answer is not a 200
}

// ending is how the exchange ends.
type ending int

const (
	endAnswer ending = iota
	endHang          // no answer until the client or the sandbox gives up
	endReset         // the connection is closed without an answer
)

// takes reports whether the mail counts as sent.
func (a *answer) takes() bool {
	return a.lost || a.status == 0 && a.end == endAnswer && a.page == "" && !a.empty
}

// statusSent returns the status that the client sees; 0 if it gets no answer.
func (a *answer) statusSent() int {
	switch {
	case a.end != endAnswer:
		return 0
	case a.status == 0:
		return http.StatusOK
	default:
		return a.status
	}
}

// write sends the answer. asDate writes Retry-After as a date.
func (a *answer) write(w http.ResponseWriter, messageID string, asDate bool) {
	h := w.Header()
	if a.retryAfter > 0 {
		h.Set("Retry-After", retryAfter(a.retryAfter, asDate))
	}
	if a.allow != "" {
		h.Set("Allow", a.allow)
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	if a.page != "" {
		writeBody(w, a.statusSent(), "text/html; charset=utf-8", []byte(a.page))
		return
	}
	writeBody(w, a.statusSent(), "application/json", a.json(messageID))
}

func (a *answer) json(messageID string) []byte {
	switch {
	case a.empty:
		return []byte(`{}`)
	case a.status == 0:
		return []byte(`{"message_id":"` + messageID + `"}`)
	}
	b, _ := json.Marshal(struct {
		Error   string `json:"error"`
		Message string `json:"message,omitempty"`
	}{a.code, a.message}) // two strings cannot fail
	return b
}

// writeBody sends a whole answer and flushes it. Stop closes connections when their
// calls are over, and would cut an unflushed answer short.
func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone; the call is on record
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// retryAfter writes d, which is above 0, in one of the two forms of RFC 9110,
// section 10.2.3. It rounds up, so that no client comes back too early.
func retryAfter(d time.Duration, asDate bool) string {
	seconds := int64(math.Ceil(d.Seconds()))
	if !asDate {
		return strconv.FormatInt(seconds, 10)
	}
	at := time.Now().Add(time.Duration(seconds)*time.Second + time.Second - 1)
	return at.UTC().Truncate(time.Second).Format(http.TimeFormat)
}

// reset closes the client's connection in the middle of the exchange. Over TCP it
// sends an RST, as the kernel of a crashed server would.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		// The connection is not HTTP/1, so it cannot be closed.
		writeBody(w, http.StatusInternalServerError, "application/json", []byte(`{"error":"cannot_reset"}`))
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
