// Package clients has real programs and libraries hand mail to the relay.
package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func mailFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mail.eml")
	if err := os.WriteFile(path, []byte(harness.ClientMail), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
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
	python := harness.Tool(t, "python3")
	s := harness.ServeSandbox(t, "")
	host, port := harness.HostPort(t, s.SMTP)
	r := harness.ExecuteTool(t, harness.Environ(t, "PYTHONUTF8=1"), "", python, "-c", smtplib, host, port, harness.ClientSubject, harness.ClientText)
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	harness.Taken(t, s, "bob@example.net")
	harness.Taken(t, s, "eve@example.net")
	for _, want := range []string{"refused {}", "data 550 5.7.1 suppressed: <suppressed@example.net>", `rcpt (550, b"5.7.1 <suppressed@example.net> suppressed: `} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("smtplib was not told %q:\n%s", want, r.Out)
		}
	}
}

func TestCurl(t *testing.T) {
	curl := harness.Tool(t, "curl")
	s := harness.ServeSandbox(t, "")
	file := mailFile(t)
	send := func(to string) harness.Result {
		return harness.ExecuteTool(t, harness.Environ(t), "", curl, "-sS", "-v", "smtp://"+s.SMTP, "--mail-from", "zoe@sandbox.example", "--mail-rcpt", to, "--upload-file", file)
	}
	if r := send("bob@example.net"); r.Code != 0 || !regexp.MustCompile(`< 250 2\.0\.0 accepted [0-9a-v]{20} msg_`).MatchString(r.Err) {
		t.Fatalf("%+v", r)
	}
	harness.Taken(t, s, "bob@example.net")
	if r := send("invalid@example.net"); r.Code == 0 || !strings.Contains(r.Err, "< 554 5.6.0 refused by the API") {
		t.Errorf("%+v", r)
	}
}

func TestSwaks(t *testing.T) {
	swaks := harness.Tool(t, "swaks")
	s := harness.ServeSandbox(t, "")
	host, port := harness.HostPort(t, s.SMTP)
	r := harness.ExecuteTool(t, harness.Environ(t), harness.ClientMail, swaks, "--server", host, "--port", port, "--helo", "client.test", "--pipeline",
		"--from", "zoe@sandbox.example", "--to", "bob@example.net,suppressed@example.net", "--data", "-")
	if r.Code != 0 || !strings.Contains(r.Out, "except <suppressed@example.net>") {
		t.Fatalf("%+v", r)
	}
	harness.Taken(t, s, "bob@example.net")
	r = harness.ExecuteTool(t, harness.Environ(t), harness.ClientMail, swaks, "--server", host, "--port", port, "--helo", "client.test",
		"--from", "zoe@sandbox.example", "--to", "suppressed@example.net", "--data", "-")
	if r.Code == 0 || !strings.Contains(r.All(), "550 5.7.1 <suppressed@example.net>") {
		t.Errorf("%+v", r)
	}
}

func TestMSMTP(t *testing.T) {
	msmtp := harness.Tool(t, "msmtp")
	s := harness.ServeSandbox(t, "")
	host, port := harness.HostPort(t, s.SMTP)
	send := func(to string) harness.Result {
		return harness.ExecuteTool(t, harness.Environ(t), strings.ReplaceAll(harness.ClientMail, "\r\n", "\n"), msmtp,
			"--host="+host, "--port="+port, "--tls=off", "--auth=off", "--domain=client.test", "--from=zoe@sandbox.example", to)
	}
	if r := send("bob@example.net"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	harness.Taken(t, s, "bob@example.net")
	// msmtp says EX_DATAERR for a refusal, which cron and the like pass on.
	if r := send("suppressed@example.net"); r.Code == 0 || !strings.Contains(r.Err, "550 5.7.1") {
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
	harness.OnlyAll(t, "nodemailer is fetched from npm")
	node := harness.Tool(t, "node")
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "nodemailer")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("nodemailer cannot be had from npm: %v\n%s", err, out)
	}
	script := filepath.Join(dir, "send.js")
	if err := os.WriteFile(script, []byte(nodemailer), 0o600); err != nil {
		t.Fatal(err)
	}
	s := harness.ServeSandbox(t, "")
	host, port := harness.HostPort(t, s.SMTP)
	r := harness.ExecuteTool(t, harness.Environ(t), "", node, script, host, port, harness.ClientSubject, harness.ClientText)
	if r.Code != 0 || !strings.Contains(r.Out, "250 2.0.0 accepted ") || !strings.Contains(r.Out, "554 554 5.6.0 refused by the API") {
		t.Fatalf("%+v", r)
	}
	harness.Taken(t, s, "bob@example.net")
}
