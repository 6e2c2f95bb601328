package sandbox

import (
	"encoding/json"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"
)

// answer is what becomes of one call. The zero value takes the mail and
// answers 200 with a message_id.
type answer struct {
	status     int           // of a refusal; 0 is a 200
	code       string        // the JSON's "error"
	message    string        // the JSON's "message", left out when empty
	retryAfter time.Duration // of a 429
	allow      string        // of a 405
	location   string        // of a 3xx
	page       string        // HTML in place of JSON
	empty      bool          // 200 with {}
	wait       time.Duration // before anything else happens
	end        ending
	events     []string // what the webhook is told once the mail is taken; "delivered" when none
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

// statusSent is what the client sees, 0 for nothing.
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

// write sends the answer. asDate gives Retry-After as a date.
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

// writeBody sends a whole answer and sees it off, so that Stop, which closes
// connections once their calls are over, cuts none short.
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

// retryAfter writes d, which is more than 0, rounded up in one of the two forms
// of RFC 9110, section 10.2.3. A date has no fractions of a second, so it is
// rounded up as well: never may a client come back too early.
func retryAfter(d time.Duration, asDate bool) string {
	seconds := int64(math.Ceil(d.Seconds()))
	if !asDate {
		return strconv.FormatInt(seconds, 10)
	}
	at := time.Now().Add(time.Duration(seconds)*time.Second + time.Second - 1)
	return at.UTC().Truncate(time.Second).Format(http.TimeFormat)
}

// reset closes the client's connection in the middle of the exchange, over TCP
// with an RST as a crashing server's kernel would.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		// Only where there is no connection of HTTP/1 to close.
		writeBody(w, http.StatusInternalServerError, "application/json", []byte(`{"error":"cannot_reset"}`))
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
