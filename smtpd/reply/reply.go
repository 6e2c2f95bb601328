// Package reply has every reply that this daemon can give to an SMTP client: a function
// for each situation, such as TooLarge.
//
// A Reply is the one error type of the SMTP side. It has the code, the enhanced status
// code and a text for the client, and a private cause for the log. From turns any error
// into one. smtpd gives the replies, and relay/intake decides most of them.
package reply

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// maxText bounds the text so that code, enhanced code, text and CRLF stay
// within the 512 octets of RFC 5321 section 4.5.3.1.5.
const maxText = 480

// A Reply is an SMTP reply. It is also an error, whose text is for the log only.
type Reply struct {
	code   int
	detail [2]int // subject and detail of the enhanced status code
	text   string
	cause  error
}

// newReply makes a reply. It takes only subject and detail of the enhanced status code:
// the class follows from the code, so the two cannot disagree (RFC 2034 section 4).
func newReply(code, subject, detail int, format string, args ...any) *Reply {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	return &Reply{code: code, detail: [2]int{subject, detail}, text: oneLine(text)}
}

// Because returns the reply with a private cause, which is logged and which the client
// does not see.
func (r *Reply) Because(cause error) *Reply {
	with := *r
	with.cause = cause
	return &with
}

// Code is the three-digit code.
func (r *Reply) Code() int { return r.code }

// Codes are all codes that a client can get: ours and those of go-smtp itself.
func Codes() []int {
	return []int{
		220, 221, 235, 250, 252, 334, 354, 421, 450, 451, 452, 454,
		500, 501, 502, 503, 504, 530, 535, 538, 550, 552, 553, 554, 555,
	}
}

// Enhanced is the enhanced status code, such as 5.7.1.
func (r *Reply) Enhanced() string {
	return string(r.appendEnhanced(nil))
}

func (r *Reply) appendEnhanced(b []byte) []byte {
	b = append(strconv.AppendInt(b, int64(r.code/100), 10), '.')
	b = append(strconv.AppendInt(b, int64(r.detail[0]), 10), '.')
	return strconv.AppendInt(b, int64(r.detail[1]), 10)
}

// Text is the text behind the codes: one line of printable ASCII.
func (r *Reply) Text() string { return r.text }

// Positive reports whether the reply takes responsibility for the mail.
func (r *Reply) Positive() bool { return r.code/100 == 2 }

// String is the reply as the client reads it.
func (r *Reply) String() string {
	b := make([]byte, 0, len("250 2.10.10 ")+len(r.text))
	b = append(strconv.AppendInt(b, int64(r.code), 10), ' ')
	return string(append(append(r.appendEnhanced(b), ' '), r.text...))
}

// Logged returns a reply as a log or a record may keep it: without the names of files in
// the mail, which CannotCarry tells the client.
func Logged(line string) string {
	if before, _, named := strings.Cut(line, ": "); named && strings.HasPrefix(line, "554 5.6.1 ") {
		return before
	}
	return line
}

// Error returns the reply with its private cause, for the log and never for a client.
func (r *Reply) Error() string {
	if r.cause == nil {
		return r.String()
	}
	return r.String() + ": " + r.cause.Error()
}

// Unwrap returns the private cause.
func (r *Reply) Unwrap() error { return r.cause }

// SMTP returns the reply as go-smtp's error. Nothing else may be returned to go-smtp: it
// finds the type by a direct assertion, and sends the text of any other error to the
// client (conn.go, handleData and handleRcpt). It writes an SMTPError of code 250 as it
// is, so a success can have the queue id.
func (r *Reply) SMTP() *smtp.SMTPError {
	return &smtp.SMTPError{
		Code:         r.code,
		EnhancedCode: smtp.EnhancedCode{r.code / 100, r.detail[0], r.detail[1]},
		Message:      r.text,
	}
}

// From returns the reply for an error: the Reply in its chain, or 451 4.3.0 with a fixed
// text, because a client must not see the text of an unknown error. It returns nil for
// nil.
func From(err error) *Reply {
	var r *Reply
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		return r
	case errors.Is(err, context.Canceled):
		return ShuttingDown().Because(err)
	default:
		return LocalError().Because(err)
	}
}

// oneLine makes s fit for a reply: RFC 5321 section 4.2 allows printable
// ASCII and tab, and a line break would forge a second reply.
func oneLine(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '\t' || c == '\r' || c == '\n':
			return ' '
		case c < ' ' || c > '~':
			return '?'
		}
		return c
	}, s)
	if strings.Contains(s, "  ") || strings.TrimSpace(s) != s { // no fixed text
		s = strings.Join(strings.Fields(s), " ")
	}
	if len(s) > maxText {
		s = s[:maxText-3] + "..."
	}
	return s
}
