package sandbox

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// magic is a Magic with its answer.
type magic struct {
	name   string
	tag    tag
	what   string
	answer answer
}

// tag is the text that may stand between "+" and "@". A malformed tag is ignored.
// Permanent outcomes take any tag, so that there are many addresses for them, such
// as suppressed+7@.
type tag string

const (
	tagAny      tag = ""
	tagTimes    tag = "[+{n}]"             // only the first n calls for the address
	tagLimit    tag = "[+{n}[x{seconds}]]" // the same, with Retry-After; n = 0 is always
	tagDuration tag = "[+{duration}]"      // as Go writes it: 500ms, 2s
)

// The most that a tag can ask for.
const (
	longestWait       = 10 * time.Minute
	longestRetryAfter = 7 * 24 * time.Hour
)

// MagicRecipients lists the recipients that force an outcome.
func MagicRecipients() []Magic {
	var list []Magic
	for _, m := range magics() {
		list = append(list, Magic{LocalPart: m.name + string(m.tag), What: m.what})
	}
	return list
}

// MagicRecipients implements provider.Sandbox.
func (*Server) MagicRecipients() []Magic { return MagicRecipients() }

// magics is the table of the magic recipients.
func magics() []magic {
	const later = "; with a number, only the first {n} calls for the address"
	return []magic{
		{"suppressed", tagAny, "422 suppressed: on the provider's suppression list",
			answer{status: 422, code: "suppressed"}},
		{"invalid", tagAny, "422 validation: the payload is refused",
			answer{status: 422, code: "validation", message: "to.email does not accept mail"}},
		{"badrequest", tagAny, "400", answer{status: 400, code: "bad_request", message: "the request is not understood"}},
		{"toolarge", tagAny, "413", answer{status: 413, code: "too_large", message: "the body is too large"}},
		{"ratelimited", tagLimit, "429 with Retry-After for the first {n} calls for the address, then accepted; once and 1 second unless given, always when {n} is 0",
			answer{status: 429, code: "rate_limited", message: "too many requests", retryAfter: time.Second}},
		{"down", tagTimes, "500" + later, answer{status: 500, code: "internal", message: "something went wrong"}},
		{"unavailable", tagTimes, "503" + later, answer{status: 503, code: "unavailable", message: "try again later"}},
		{"forbidden", tagTimes, "403" + later, answer{status: 403, code: "forbidden", message: "the key may not send"}},
		{"notfound", tagTimes, "404" + later, answer{status: 404, code: "not_found", message: "there is nothing here"}},
		{"redirect", tagTimes, "302 to a path that does not exist" + later,
			answer{status: 302, code: "moved", location: "/api/moved"}},
		{"nojson", tagTimes, "200 with a page of HTML, mail not taken" + later, answer{page: "<html><body><h1>It works!</h1></body></html>"}},
		{"noid", tagTimes, "200 with {} and no message_id, mail not taken" + later, answer{empty: true}},
		{"slow", tagDuration, "accepted after 3 seconds, or as long as the tag says (500ms, 2s); taken even when the client does not wait",
			answer{wait: 3 * time.Second}},
		{"timeout", tagTimes, "no answer until the client gives up, mail not taken" + later, answer{end: endHang}},
		{"reset", tagTimes, "the connection is reset without an answer, mail not taken" + later, answer{end: endReset}},
		{"lost", tagTimes, "the mail is taken, but the connection is reset without an answer" + later,
			answer{end: endReset, lost: true}},
		{"hardbounce", tagAny, "accepted; later bounces for good (event bounced.hard)", answer{events: []string{"bounced.hard"}}},
		{"softbounce", tagAny, "accepted; later bounces for now (event bounced.soft)", answer{events: []string{"bounced.soft"}}},
		{"complaint", tagAny, "accepted; later the recipient complains (event complained)", answer{events: []string{"delivered", "complained"}}},
		{"unsubscribe", tagAny, "accepted; later the recipient unsubscribes (event unsubscribed)", answer{events: []string{"delivered", "unsubscribed"}}},
	}
}

// forced is what one magic recipient forces, after its tag was read.
type forced struct {
	answer
	times int // for the first calls; 0 is always
}

// magicTable has the magic recipients by name.
type magicTable map[string]magic

func newMagicTable() magicTable {
	s := magicTable{}
	for _, m := range magics() {
		s[m.name] = m
	}
	return s
}

// lookUp returns what a local part forces, if it is magic.
func (s magicTable) lookUp(local string) (forced, bool) {
	name, t, _ := strings.Cut(strings.ToLower(local), "+")
	m, ok := s[name]
	if !ok {
		return forced{}, false
	}
	f := forced{answer: m.answer}
	switch m.tag {
	case tagTimes:
		f.times = number(t, 0)
	case tagLimit:
		n, seconds, given := strings.Cut(t, "x")
		f.times = number(n, 1)
		if given {
			f.retryAfter = min(max(1, time.Duration(number(seconds, 1)))*time.Second, longestRetryAfter)
		}
	case tagDuration:
		if d, err := time.ParseDuration(t); err == nil && d >= 0 {
			f.wait = min(d, longestWait)
		}
	}
	return f, true
}

// events returns the events after "sent" for a mail to this address.
func (s magicTable) events(to string) []string {
	f, ok := s.lookUp(to[:max(strings.LastIndexByte(to, '@'), 0)])
	if !ok || f.events == nil {
		return []string{"delivered"}
	}
	return f.events
}

// number reads a whole number that fits an int32, or returns the default.
func number(s string, otherwise int) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return otherwise
	}
	return int(n)
}

// The usual outages. Any magic recipient's local part is one.
const (
	OutageNone        Outage = ""
	OutageError       Outage = "down"
	OutageUnavailable Outage = "unavailable"
	OutageHang        Outage = "timeout"
	OutageReset       Outage = "reset"
	OutageLost        Outage = "lost"
	OutageGarbage     Outage = "nojson"
	OutageNoID        Outage = "noid"
	OutageRedirect    Outage = "redirect"
)

// outage returns the answer that an outage forces.
func (s magicTable) outage(o Outage) (*answer, error) {
	if o == OutageNone {
		return nil, nil
	}
	f, ok := s.lookUp(string(o))
	if !ok {
		return nil, fmt.Errorf("outage %q is no magic recipient's local part", o)
	}
	return &f.answer, nil
}
