package nexuspromail

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/smtp2rest/smtp2rest/relay"
)

// defaultRetryAfter is what the vendor's guides assume for a 429 without
// Retry-After.
const defaultRetryAfter = 60 * time.Second

// longestRetryAfter bounds a Retry-After. A longer one is a mistake, and sums with it
// could overflow.
const longestRetryAfter = 365 * 24 * time.Hour

// maxDetail bounds the API's words in logs and replies, in bytes.
const maxDetail = 300

// answer has all fields of an answer that the API documents.
type answer struct {
	MessageID string `json:"message_id"`
	Error     string `json:"error"`
	Message   string `json:"message"`
}

// classify turns an answer into an outcome. Any answer that is not documented as
// taking or refusing the mail keeps the mail.
func classify(status int, header http.Header, body []byte, now time.Time) relay.Outcome {
	var a answer
	parseErr := json.Unmarshal(body, &a)
	out := relay.Outcome{Status: status, Detail: detail(a)}
	switch {
	case status >= 200 && status < 300:
		return accepted(out, a, parseErr)
	case status == http.StatusUnprocessableEntity && a.Error == "suppressed":
		out.Kind = relay.Suppressed
	case status == http.StatusUnprocessableEntity || status == http.StatusBadRequest:
		out.Kind = relay.Refused
	case status == http.StatusRequestEntityTooLarge:
		out.Kind = relay.TooLarge
	case status == http.StatusUnauthorized:
		out.Kind = relay.Unauthorized
		out.Cause = errors.New("the API refuses the key")
	case status == http.StatusForbidden:
		out.Kind = relay.Unauthorized
		out.Cause = errors.New("the API forbids it, for the key or for the sender")
	case status == http.StatusTooManyRequests:
		out.Kind = relay.RateLimited
		out.RetryAfter = retryAfter(header.Get("Retry-After"), now)
	default:
		out.Kind = relay.Unavailable
		out.Cause = fmt.Errorf("the API answered %d %s", status, http.StatusText(status))
	}
	return out
}

// accepted only believes a 2xx that has a message_id: a captive portal or a proxy
// answers 200 as well. The mail may have been taken.
func accepted(out relay.Outcome, a answer, parseErr error) relay.Outcome {
	switch {
	case parseErr != nil:
		out.Kind = relay.Ambiguous
		out.Cause = fmt.Errorf("the API's answer is no JSON: %w", parseErr)
	case strings.TrimSpace(printable(a.MessageID, 200)) == "":
		out.Kind = relay.Ambiguous
		out.Cause = errors.New("the API's answer has no message_id")
	default:
		out.Kind = relay.Accepted
		out.MessageID = printable(a.MessageID, 200)
	}
	return out
}

// retryAfter reads seconds or an HTTP date (RFC 9110 section 10.2.3). Anything else
// counts as absent.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, longestRetryAfter.Seconds()) * float64(time.Second))
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(date.Sub(now), 0), longestRetryAfter)
	}
	return defaultRetryAfter
}

func detail(a answer) string {
	if a.Message != "" {
		return printable(a.Message, maxDetail)
	}
	return printable(a.Error, maxDetail)
}

// printable makes the API's words fit for one line of a log or a reply.
func printable(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}
