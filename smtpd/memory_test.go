package smtpd

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// reserving is a backend that needs more than the mail.
type reserving struct{ discard }

func (reserving) Message(ctx context.Context, env *Envelope, data []byte) *reply.Reply {
	if err := env.Reserve(ctx, 5*int64(len(data))); err != nil {
		return reply.From(err)
	}
	return reply.Queued("q")
}

// A message's memory is given back when it was answered, however it ended, and
// not only when its client goes.
func TestMemoryIsGivenBack(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := start(t, reserving{}, func(o *Options) {
		o.Memory = budget.New(1<<20, reg)
		o.Limits.MemoryWait, o.Limits.MessageBytes = soon(), 400_000
	})
	c := dial(t, s)
	c.want("220 ")
	c.do("EHLO c", "250 ")
	line := func(n int) string { return string(make([]byte, n)) }
	for _, tt := range []struct{ name, size, content, want string }{
		{"taken", " SIZE=100000", line(100_000), "250 2.0.0 queued q"},
		{"taken, without a size", "", line(100_000), "250 2.0.0 queued q"},
		{"too large in itself", "", line(400_000), "552 5.3.4"},
		{"too large for the backend", "", line(300_000), "552 5.3.4"},
	} {
		c.do("MAIL FROM:<a@b.test>"+tt.size, "250 ", "RCPT TO:<c@d.test>", "250 ", "DATA", "354 ", tt.content+"\r\n.", tt.want, "NOOP", "250 ")
		if used := series(t, reg, "smtp2rest_memory_used_bytes")[""]; used != ConnectionBytes {
			t.Errorf("%s: %v bytes are left", tt.name, used-ConnectionBytes)
		}
	}
	c.do("MAIL FROM:<a@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ", "BDAT 100000\r\n"+line(100_000-2), "250 ")
	if used := series(t, reg, "smtp2rest_memory_used_bytes")[""]; used < ConnectionBytes+100_000 {
		t.Errorf("a chunk holds %v", used-ConnectionBytes)
	}
	c.do("RSET", "250 ")
	if used := series(t, reg, "smtp2rest_memory_used_bytes")[""]; used != ConnectionBytes {
		t.Errorf("after RSET %v bytes are left", used-ConnectionBytes)
	}
}
