package smtpd

import (
	"context"
	"testing"

	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// lostBackend tells of messages whose reply the client did not get.
type lostBackend struct {
	fakeBackend
	lost chan string // the sender of each
}

func (b *lostBackend) Message(ctx context.Context, env *Envelope, data []byte) *reply.Reply {
	env.OnLost(func() { b.lost <- env.From })
	return b.fakeBackend.Message(ctx, env, data)
}

func newLostBackend() *lostBackend {
	b := &lostBackend{lost: make(chan string, 10)}
	b.entered, b.release = make(chan struct{}), make(chan struct{})
	return b
}

// sent gets a client as far as the backend dealing with its message.
func sent(t *testing.T, b *lostBackend) (*Server, *client) {
	t.Helper()
	s := start(t, b, nil)
	c := dial(t, s)
	c.open()
	c.do("DATA", "354 ")
	c.send("Subject: x\r\n\r\nbody\r\n.\r\n")
	<-b.entered
	return s, c
}

func TestAClientThatHangsUpIsNoticedWhileItsMessageIsDealtWith(t *testing.T) {
	for name, leave := range map[string]func(*client){
		"in order": func(c *client) { _ = c.conn.Close() },
		"by reset": func(c *client) { _ = c.conn.SetLinger(0); _ = c.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newLostBackend()
			_, c := sent(t, b)
			leave(c)
			if from := <-b.lost; from != "a@b.test" { // before Message returned
				t.Errorf("the message of %q is lost", from)
			}
			close(b.release)
		})
	}
}

func TestAClientThatGetsItsReplyIsNotLost(t *testing.T) {
	tests := []struct {
		name   string
		before string // sent before the reply
		after  func(*client)
	}{
		{"QUIT", "", func(c *client) { c.want("250 "); c.do("QUIT", "221 ") }},
		{"no QUIT", "", func(c *client) { c.want("250 "); _ = c.conn.Close() }},
		{"the next mail", "", func(c *client) { c.want("250 "); c.do("RSET", "250 ", "QUIT", "221 ") }},
		{"a command before the reply", "QUIT\r\n", func(c *client) { c.want("250 "); c.want("221 ") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newLostBackend()
			s, c := sent(t, b)
			c.send(tt.before)
			close(b.release)
			tt.after(c)
			stopWithin(t, s, patience) // every session is over
			select {
			case from := <-b.lost:
				t.Errorf("the message of %q counts as lost", from)
			default:
			}
		})
	}
}

// A reply that was written to a client that had already reset the connection,
// or does so before it reads, did not arrive.
func TestAReplyThatIsNotReadIsLost(t *testing.T) {
	b := newLostBackend()
	_, c := sent(t, b)
	close(b.release)
	// Closing with the reply unread makes TCP send a reset.
	if _, err := c.r.Peek(1); err != nil {
		t.Fatal(err)
	}
	_ = c.conn.SetLinger(0)
	_ = c.conn.Close()
	if from := <-b.lost; from != "a@b.test" {
		t.Errorf("the message of %q is lost", from)
	}
}

func TestOnLostAfterTheFact(t *testing.T) {
	env := &Envelope{receipt: new(receipt)}
	env.receipt.lost()
	told := 0
	env.OnLost(func() { told++ })
	env.receipt.lost()
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
	new(Envelope).OnLost(func() { t.Error("told without a receipt") })
}
