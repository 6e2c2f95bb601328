package attempt

import (
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay"
)

func TestEndOf(t *testing.T) {
	for _, tt := range []struct {
		out  relay.Outcome
		want End
	}{
		{relay.Outcome{Kind: relay.Accepted, Status: 200}, Sent},
		{relay.Outcome{Kind: relay.Suppressed, Status: 422}, Suppressed},
		{relay.Outcome{Kind: relay.Suppressed}, Suppressed}, // known, without a call
		{relay.Outcome{Kind: relay.Refused, Status: 422}, Refused},
		{relay.Outcome{Kind: relay.Refused}, Unreadable}, // by the mapping, or damaged
		{relay.Outcome{Kind: relay.TooLarge, Status: 413}, TooLarge},
		{relay.Outcome{Kind: relay.Unavailable, Status: 503}, Expired},
		{relay.Outcome{Kind: relay.Ambiguous}, Expired},
	} {
		if got := EndOf(tt.out); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.out, got, tt.want)
		}
	}
}

func TestTrace(t *testing.T) {
	const valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tt := range []struct{ mail, want string }{
		{"Subject: x\r\ntraceparent: " + valid + "\r\n\r\nbody", valid},
		{"TraceParent :  " + valid + " \n\nbody", valid},
		{"Traceparent: " + valid, valid}, // a mail that is all header
		{"Subject: x\r\n\r\ntraceparent: " + valid + "\r\n", ""},
		{"traceparent: ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n", ""},
		{"traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n\r\n", ""},
		{"traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01\r\n\r\n", ""},
		{"traceparent: 00-secret words-b7ad6b7169203331-01\r\n\r\n", ""},
		{"traceparent: " + strings.ToUpper(valid) + "\r\n\r\n", ""},
		{"traceparent: " + valid + "-more\r\n\r\n", ""},
		{strings.Repeat("X-Long: y\r\n", 256<<10) + "traceparent: " + valid + "\r\n\r\n", ""},
		{"", ""},
	} {
		if got := Trace([]byte(tt.mail)); got != tt.want {
			t.Errorf("%.60q: %q, want %q", tt.mail, got, tt.want)
		}
	}
}
