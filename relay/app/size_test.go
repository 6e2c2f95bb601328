package app

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// A text as large as EHLO says is taken, and one octet more is refused at MAIL.
func TestWhatSIZEAnnouncesIsTaken(t *testing.T) {
	box := sandbox.New(sandbox.Options{Key: "planted-key", MaxBody: 1 << 30})
	if err := box.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Stop(context.Background()) })
	for _, limits := range []string{"memory = \"16MiB\"\nconnections = 10", "memory = \"40MiB\"\nconnections = 600", "memory = \"64MiB\"\nmessage_size = \"5MiB\""} {
		a, _ := start(t, load(t, box.URL(), toml(t, "[limits]\n"+limits)))
		c := dial(t, a.Addrs()[0].String())
		_ = c.conn.SetDeadline(time.Now().Add(10 * patience))
		c.want("220 ")
		c.send("EHLO c\r\n")
		size := 0
		for size == 0 {
			line, err := c.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if _, said, ok := strings.Cut(strings.TrimSpace(line), "250-SIZE "); ok {
				size, _ = strconv.Atoi(said)
			}
		}
		c.want("250 ")
		do := func(pairs ...string) {
			for i := 0; i < len(pairs); i += 2 {
				c.send(pairs[i] + "\r\n")
				c.want(pairs[i+1])
			}
		}
		do("MAIL FROM:<a@sandbox.example> SIZE="+strconv.Itoa(size+1), "552 5.3.4 ", "MAIL FROM:<a@sandbox.example> SIZE="+strconv.Itoa(size), "250 ",
			"RCPT TO:<bob@example.net>", "250 ", "DATA", "354 ")
		header := "Subject: all there is room for\r\n\r\n"
		line := strings.Repeat("words, and words. ", 4) + "\r\n"
		body := strings.Repeat(line, (size-len(header))/len(line))
		c.send(header + body + strings.Repeat("x", size-len(header)-len(body)-2) + "\r\n.\r\n")
		c.want("250 2.0.0 accepted ")
		do("QUIT", "221 ")
		t.Logf("%s: %d octets", strings.ReplaceAll(limits, "\n", ", "), size)
	}
}
