package app

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

// nestedMail has the word wherever a mail can have one: in a forwarded mail and
// one that is forwarded in it, in names of files and of parameters, in what comes
// before, between and after the parts, in what is malformed.
func nestedMail() string {
	const w = "zebrafish"
	inner := "From: " + w + "@sandbox.example\r\nSubject: " + w + " innermost\r\nX-" + w + ": " + w + "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; name=\"" + w + ".txt\"\r\n\r\n" + w + "\r\n"
	forwarded := "From: \"" + w + "\" <shop@sandbox.example>\r\nSubject: " + w + "\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=two\r\n\r\n" + w + " preamble\r\n" +
		"--two\r\nContent-Type: message/rfc822\r\nContent-Description: " + w + "\r\n\r\n" + inner + "\r\n--two--\r\n" + w + " epilogue\r\n"
	part := func(header, body string) string { return "--one\r\n" + header + "\r\n\r\n" + body + "\r\n" }
	return "From: shop@sandbox.example\r\nTo: bob@example.net\r\nSubject: " + w + "\r\nX-" + w + ": " + w + "\r\n" + w + " is no header\r\nReply-To: <" + w + ">\r\nMessage-ID: <1@x>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=one; " + w + "=" + w + "\r\n\r\n" + w + " preamble\r\n" +
		part("Content-Type: text/plain; charset="+w, w+" body\r\nbegin 644 "+w+".uu\r\n#0V%T\r\n`\r\nend\r\n") +
		part("Content-Type: message/rfc822", forwarded) +
		part("Content-Type: application/"+w+"; name=\""+w+".bin\"\r\nContent-Transfer-Encoding: "+w, w) +
		part("Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=\""+w+".pdf\"\r\nContent-Transfer-Encoding: base64", base64.StdEncoding.EncodeToString([]byte(w))) +
		part("Content-Type: message/delivery-status", "Reporting-MTA: dns; "+w+"\r\n") +
		part("Content-Type: text/calendar; method="+w, w) +
		"--one--\r\n" + w + " epilogue\r\n.\r\n"
}

// logging runs a daemon with its log at the level that says most.
func logging(t *testing.T, c *config.Config) (*App, *journal) {
	t.Helper()
	j := &journal{}
	a := New(Options{Config: c, Version: "v0.0.0-test", Log: slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop(a, patience) })
	return a, j
}

// Neither the log nor the history has a word of what a mail says, however deep it
// is in it, whatever the policy says of its files and however the mail ends.
func TestNoWordOfANestedMailIsKept(t *testing.T) {
	dir, box := t.TempDir(), newSandbox(t)
	conf := func(policy string) *config.Config {
		return load(t, box.URL(), inDir(dir, "[mail]\nattachments = \""+policy+"\"\n[delivery]\nwait = \"1s\"\nretry_first = \"1s\"\nretry_max = \"1s\"\n"))
	}
	hand := func(a *App, to, want string) {
		t.Helper()
		cl := dial(t, a.Addrs()[0].String())
		cl.want("220 ")
		for _, step := range []string{"EHLO client.test", "MAIL FROM:<shop@sandbox.example>", "RCPT TO:<" + to + ">"} {
			cl.send(step + "\r\n")
			cl.want("250 ")
		}
		cl.send("DATA\r\n")
		cl.want("354 ")
		cl.send(nestedMail())
		cl.want(want)
		_ = cl.conn.Close()
	}
	first, log := logging(t, conf("strip"))
	for to, want := range map[string]string{"bob@example.net": "250 2.0.0 accepted", "invalid@example.net": "554 ", "down@example.net": "250 2.0.0 queued"} {
		hand(first, to, want)
	}
	if err := stop(first, patience); err != nil {
		t.Error(err)
	}
	second, more := logging(t, conf("refuse"))
	hand(second, "bob@example.net", "554 5.6.1 attachments cannot be sent from here: zebrafish.uu (") // the client is told which
	until(t, func() bool { return strings.Contains(more.String(), "outcome=given_up") })
	if err := stop(second, patience); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(log.String() + more.String()) {
		if strings.Contains(strings.ToLower(line), "zebrafish") {
			t.Errorf("the log says %s", line)
		}
	}
	for _, name := range []string{"records.db", "records.db-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if i := bytes.Index(bytes.ToLower(b), []byte("zebrafish")); i >= 0 {
			t.Errorf("the history has %q", b[max(0, i-100):min(len(b), i+100)])
		}
	}
}
