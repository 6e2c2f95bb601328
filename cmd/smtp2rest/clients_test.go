package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// realClients makes a missing client a failure. CI sets it.
func realClients() bool { return os.Getenv("SMTP2REST_REAL_CLIENTS") == "1" }

// tool is where a program is. Without it there is nothing to test.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && realClients() {
		t.Fatalf("SMTP2REST_REAL_CLIENTS is set, and %s is not installed", name)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

const (
	clientSubject = "Grüße aus Köln ☺"
	clientText    = "Schöne Grüße!\n.\n.. dots\n"
)

// clientMail is what a client is given as a file: multipart, with lines that
// have to be dot-stuffed.
const clientMail = "From: =?utf-8?q?Zo=C3=AB?= <zoe@sandbox.example>\r\nTo: Bob <bob@example.net>\r\n" +
	"Subject: =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4g4pi6?=\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/alternative; boundary=frontier\r\n\r\n" +
	"--frontier\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
	"Schöne Grüße!\r\n.\r\n.. dots\r\n" +
	"\r\n--frontier\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
	"PHA+U2Now7ZuZSA8Yj5HcsO8w59lPC9iPiE8L3A+\r\n--frontier--\r\n"

// taken checks that the API got the mail, once, as it was written.
func taken(t *testing.T, s relayed, to string) {
	t.Helper()
	calls := callsTo(t, s.sandbox, to)
	if len(calls) != 1 {
		t.Fatalf("the sandbox got %d calls for %s", len(calls), to)
	}
	b := calls[0].Body
	if calls[0].Status != 200 || b.Subject != clientSubject || b.From.Email != "zoe@sandbox.example" || b.From.Name != "Zoë" {
		t.Errorf("the sandbox answered %d to %+v", calls[0].Status, b)
	}
	if strings.TrimRight(b.Text, "\n") != strings.TrimRight(clientText, "\n") || strings.TrimSpace(b.HTML) != "<p>Schöne <b>Grüße</b>!</p>" {
		t.Errorf("the bodies are %q and %q", b.Text, b.HTML)
	}
}

func mailFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mail.eml")
	if err := os.WriteFile(path, []byte(clientMail), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func hostPort(t *testing.T, address string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

const smtplib = `
import smtplib, sys
from email.message import EmailMessage
m = EmailMessage()
m["From"] = "Zoë <zoe@sandbox.example>"
m["To"] = "Bob <bob@example.net>"
m["Subject"] = sys.argv[3]
m.set_content(sys.argv[4])
m.add_alternative("<p>Schöne <b>Grüße</b>!</p>", subtype="html")
with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as s:
    s.ehlo("client.test")
    print("refused", s.send_message(m, to_addrs=["bob@example.net", "eve@example.net"]))
    try:
        s.sendmail("zoe@sandbox.example", ["suppressed@example.net"], "Subject: s\r\n\r\nb\r\n")
    except smtplib.SMTPDataError as e:
        print("data", e.smtp_code, e.smtp_error.decode())
    try:
        s.sendmail("zoe@sandbox.example", ["suppressed@example.net"], "Subject: s\r\n\r\nb\r\n")
    except smtplib.SMTPRecipientsRefused as e:
        print("rcpt", e.recipients["suppressed@example.net"])
`

func TestPythonSMTPLib(t *testing.T) {
	python := tool(t, "python3")
	s := serveSandbox(t, "")
	host, port := hostPort(t, s.smtp)
	r := executeTool(t, environ(t, "PYTHONUTF8=1"), "", python, "-c", smtplib, host, port, clientSubject, clientText)
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	taken(t, s, "bob@example.net")
	taken(t, s, "eve@example.net")
	for _, want := range []string{"refused {}", "data 550 5.7.1 suppressed: <suppressed@example.net>", `rcpt (550, b"5.7.1 <suppressed@example.net> suppressed: `} {
		if !strings.Contains(r.out, want) {
			t.Errorf("smtplib was not told %q:\n%s", want, r.out)
		}
	}
}

func TestCurl(t *testing.T) {
	curl := tool(t, "curl")
	s := serveSandbox(t, "")
	file := mailFile(t)
	send := func(to string) result {
		return executeTool(t, environ(t), "", curl, "-sS", "-v", "smtp://"+s.smtp, "--mail-from", "zoe@sandbox.example", "--mail-rcpt", to, "--upload-file", file)
	}
	if r := send("bob@example.net"); r.code != 0 || !regexp.MustCompile(`< 250 2\.0\.0 accepted [0-9a-v]{20} msg_`).MatchString(r.err) {
		t.Fatalf("%+v", r)
	}
	taken(t, s, "bob@example.net")
	if r := send("invalid@example.net"); r.code == 0 || !strings.Contains(r.err, "< 554 5.6.0 refused by the API") {
		t.Errorf("%+v", r)
	}
}

func TestSwaks(t *testing.T) {
	swaks := tool(t, "swaks")
	s := serveSandbox(t, "")
	host, port := hostPort(t, s.smtp)
	r := executeTool(t, environ(t), clientMail, swaks, "--server", host, "--port", port, "--helo", "client.test", "--pipeline",
		"--from", "zoe@sandbox.example", "--to", "bob@example.net,suppressed@example.net", "--data", "-")
	if r.code != 0 || !strings.Contains(r.out, "except <suppressed@example.net>") {
		t.Fatalf("%+v", r)
	}
	taken(t, s, "bob@example.net")
	r = executeTool(t, environ(t), clientMail, swaks, "--server", host, "--port", port, "--helo", "client.test",
		"--from", "zoe@sandbox.example", "--to", "suppressed@example.net", "--data", "-")
	if r.code == 0 || !strings.Contains(r.all(), "550 5.7.1 <suppressed@example.net>") {
		t.Errorf("%+v", r)
	}
}

func TestMSMTP(t *testing.T) {
	msmtp := tool(t, "msmtp")
	s := serveSandbox(t, "")
	host, port := hostPort(t, s.smtp)
	send := func(to string) result {
		return executeTool(t, environ(t), strings.ReplaceAll(clientMail, "\r\n", "\n"), msmtp,
			"--host="+host, "--port="+port, "--tls=off", "--auth=off", "--domain=client.test", "--from=zoe@sandbox.example", to)
	}
	if r := send("bob@example.net"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	taken(t, s, "bob@example.net")
	// msmtp says EX_DATAERR for a refusal, which cron and the like pass on.
	if r := send("suppressed@example.net"); r.code == 0 || !strings.Contains(r.err, "550 5.7.1") {
		t.Errorf("%+v", r)
	}
}

const nodemailer = `
const nodemailer = require("nodemailer");
const [host, port, subject, text] = process.argv.slice(2);
const t = nodemailer.createTransport({ host, port: Number(port), name: "client.test" });
(async () => {
  const info = await t.sendMail({ from: "Zoë <zoe@sandbox.example>", to: "bob@example.net", subject, text, html: "<p>Schöne <b>Grüße</b>!</p>" });
  console.log(info.response);
  try {
    await t.sendMail({ from: "zoe@sandbox.example", to: "invalid@example.net", subject, text });
  } catch (e) {
    console.log(e.responseCode, e.response);
  }
})();
`

// nodemailer is no program but a package, fetched only when real clients are
// asked for.
func TestNodemailer(t *testing.T) {
	if !realClients() {
		t.Skip("nodemailer is fetched from npm only when SMTP2REST_REAL_CLIENTS=1")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "nodemailer")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("nodemailer cannot be had from npm: %v\n%s", err, out)
	}
	script := filepath.Join(dir, "send.js")
	if err := os.WriteFile(script, []byte(nodemailer), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveSandbox(t, "")
	host, port := hostPort(t, s.smtp)
	r := executeTool(t, environ(t), "", node, script, host, port, clientSubject, clientText)
	if r.code != 0 || !strings.Contains(r.out, "250 2.0.0 accepted ") || !strings.Contains(r.out, "554 554 5.6.0 refused by the API") {
		t.Fatalf("%+v", r)
	}
	taken(t, s, "bob@example.net")
}
