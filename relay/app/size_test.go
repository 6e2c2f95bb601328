//go:build !race

package app

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// Whatever people and programs write is taken when it is as large as EHLO says, and
// one octet more is refused at MAIL. The sandbox has room for it, too.
//
// Not under the race detector: with it, a mail of this size is mapped for longer than the
// relay waits, is queued, and its memory is missing for the next one. The test sends one
// mail after the other and has nothing that could race.
func TestWhatSIZEAnnouncesIsTaken(t *testing.T) {
	box := sandbox.New(sandbox.Options{Key: "planted-key"})
	if err := box.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Stop(context.Background()) })
	const csv = "Content-Type: text/csv\r\nContent-Disposition: attachment; filename=a.csv\r\nContent-Transfer-Encoding: base64\r\n"
	all := []string{"memory = \"16MiB\"\nconnections = 10", "memory = \"64MiB\"\nmessage_size = \"5MiB\"", "memory = \"40MiB\"\nconnections = 600", ""}
	for _, limits := range all[:harness.Scaled(2, 4)] {
		a, _ := start(t, load(t, box.URL(), toml(t, "[limits]\n"+limits+"\n[mail]\nattachments = \"strip\"\n")))
		for name, of := range map[string]struct{ header, line string }{
			"words":                 {"", strings.Repeat("words, and words. ", 4)},
			"JSON":                  {"", `{"a":"b","c":["d","e"]},`},
			"Russian, in KOI8-R":    {"Content-Type: text/plain; charset=koi8-r\r\n", strings.Repeat("\xd0\xd2\xc9\xd7\xc5\xd4 ", 10)},
			"text in base64":        {"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n", strings.Repeat("d29yZHMg", 9)},
			"HTML":                  {"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n", strings.Repeat("<p class=3D\"a\">Gr=C3=BC=C3=9Fe</p>", 2)},
			"a text that is a file": {csv, strings.Repeat("d29yZHMg", 9)},
		} {
			size := sendWhatSIZEAnnounces(t, a, of.header, of.line)
			t.Logf("%s: %d octets of %s", strings.ReplaceAll(limits, "\n", ", "), size, name)
			if limits == "" && size != 25<<20 {
				t.Error("that is not the default")
			}
		}
	}
}

// sendWhatSIZEAnnounces sends a mail that is as large as it may be.
func sendWhatSIZEAnnounces(t *testing.T, a *App, header, line string) (size int) {
	t.Helper()
	c := dial(t, a.Addrs()[0].String())
	_ = c.conn.SetDeadline(time.Now().Add(10 * patience))
	c.want("220 ")
	c.send("EHLO c\r\n")
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
	do("MAIL FROM:<a@sandbox.example> SIZE="+strconv.Itoa(size+1), "552 5.3.4 ")
	header = "Subject: all there is room for\r\nMIME-Version: 1.0\r\n" + header + "\r\n"
	line += "\r\n"
	body := strings.Repeat(line, (size-len(header)-2)/len(line))
	mail := header + body + strings.Repeat("x", size-len(header)-len(body)-2) + "\r\n.\r\n"
	for range 20 { // a machine that has much else to do may still be at the mail before
		do("MAIL FROM:<a@sandbox.example> SIZE="+strconv.Itoa(size), "250 ", "RCPT TO:<bob@example.net>", "250 ", "DATA", "354 ")
		c.send(mail)
		reply, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(reply, "250 2.0.0 ") {
			do("QUIT", "221 ")
			return size
		}
		if !strings.HasPrefix(reply, "452 4.3.1 ") {
			t.Fatalf("%.60q... is answered %q", header, reply)
		}
	}
	t.Fatalf("%.60q... finds no room", header)
	return 0
}
