package clients

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// serveSecure is a relay in which everybody logs in, as app with hunter2.
func serveSecure(t *testing.T, mode string) harness.Relay {
	t.Helper()
	return harness.ServeSandbox(t, fmt.Sprintf(`tls = %q
self_signed = true
min_tls = "1.0"
auth_without_tls = false
require_auth = true
[[user]]
name = "app"
password_hash = %q
senders = ["@sandbox.example"]
`, mode, harness.HashOf(t, "hunter2")))
}

const secureSMTPLib = `
import smtplib, ssl, sys
context = ssl._create_unverified_context()
host, port, mode, subject, text = sys.argv[1:6]
from email.message import EmailMessage
m = EmailMessage()
m["From"] = "Zoë <zoe@sandbox.example>"
m["Subject"] = subject
m.set_content(text)
m.add_alternative("<p>Schöne <b>Grüße</b>!</p>", subtype="html")
with smtplib.SMTP_SSL(host, int(port), context=context) if mode == "implicit" else smtplib.SMTP(host, int(port)) as s:
    if mode == "starttls":
        s.ehlo()
        print("clear", "auth" in s.esmtp_features, s.docmd("AUTH", "PLAIN AGEAYg=="))
        s.starttls(context=context)
    try:
        s.sendmail("zoe@sandbox.example", ["bob@example.net"], "x")
    except smtplib.SMTPSenderRefused as e:
        print("before", e.smtp_code)
    try:
        s.login("app", "wrong")
    except smtplib.SMTPAuthenticationError as e:
        print("wrong", e.smtp_code)
    s.user, s.password = "app", "hunter2"
    print("login", s.auth("LOGIN", s.auth_login, initial_response_ok=False))
    try:
        s.sendmail("eve@elsewhere.example", ["bob@example.net"], "x")
    except smtplib.SMTPSenderRefused as e:
        print("sender", e.smtp_code)
    print("refused", s.send_message(m, from_addr="zoe@sandbox.example", to_addrs=["bob@example.net"]))
`

func TestPythonSMTPLibSecure(t *testing.T) {
	python := harness.Tool(t, "python3")
	for _, mode := range []string{"starttls", "implicit"} {
		t.Run(mode, func(t *testing.T) {
			s := serveSecure(t, mode)
			host, port := harness.HostPort(t, s.SMTP)
			r := harness.ExecuteTool(t, harness.Environ(t, "PYTHONUTF8=1"), "", python, "-c", secureSMTPLib, host, port, mode, harness.ClientSubject, harness.ClientText)
			if r.Code != 0 {
				t.Fatalf("%+v", r)
			}
			harness.Taken(t, s, "bob@example.net")
			want := []string{"before 530", "wrong 535", "login (235,", "sender 553", "refused {}"}
			if mode == "starttls" {
				want = append(want, "clear False (538,")
			}
			for _, w := range want {
				if !strings.Contains(r.Out, w) {
					t.Errorf("smtplib was not told %q:\n%s", w, r.Out)
				}
			}
		})
	}
}

func TestSwaksSecure(t *testing.T) {
	swaks := harness.Tool(t, "swaks")
	if r := harness.ExecuteTool(t, harness.Environ(t), "", swaks, "--support"); !strings.Contains(r.Out, "=== TLS supported") {
		harness.Missing(t, "this swaks has no TLS: Net::SSLeay is not installed")
	}
	s := serveSecure(t, "starttls")
	host, port := harness.HostPort(t, s.SMTP)
	send := func(more ...string) harness.Result {
		return harness.ExecuteTool(t, harness.Environ(t), harness.ClientMail, swaks, append([]string{"--server", host, "--port", port, "--helo", "client.test",
			"--from", "zoe@sandbox.example", "--to", "bob@example.net", "--data", "-"}, more...)...)
	}
	if r := send("--tls", "--auth", "LOGIN", "--auth-user", "app", "--auth-password", "hunter2"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	harness.Taken(t, s, "bob@example.net")
	for want, more := range map[string][]string{
		"530 5.7.0": {"--tls"},
		"535 5.7.8": {"--tls", "--auth", "PLAIN", "--auth-user", "app", "--auth-password", "wrong"},
	} {
		if r := send(more...); r.Code == 0 || !strings.Contains(r.All(), want) {
			t.Errorf("%s: %+v", want, r)
		}
	}
}

func TestCurlSecure(t *testing.T) {
	curl := harness.Tool(t, "curl")
	for _, scheme := range []string{"smtp", "smtps"} {
		s := serveSecure(t, map[string]string{"smtp": "starttls", "smtps": "implicit"}[scheme])
		r := harness.ExecuteTool(t, harness.Environ(t), "", curl, "-sS", "-v", scheme+"://"+s.SMTP, "--ssl-reqd", "-k", "--user", "app:hunter2",
			"--mail-from", "zoe@sandbox.example", "--mail-rcpt", "bob@example.net", "--upload-file", mailFile(t))
		if r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		harness.Taken(t, s, "bob@example.net")
	}
}

func TestMSMTPSecure(t *testing.T) {
	msmtp := harness.Tool(t, "msmtp")
	s := serveSecure(t, "starttls")
	host, port := harness.HostPort(t, s.SMTP)
	for _, way := range []string{"plain", "login"} {
		r := harness.ExecuteTool(t, harness.Environ(t), strings.ReplaceAll(harness.ClientMail, "\r\n", "\n"), msmtp, "--host="+host, "--port="+port, "--domain=client.test",
			"--tls=on", "--tls-certcheck=off", "--auth="+way, "--user=app", "--passwordeval=echo hunter2", "--from=zoe@sandbox.example", way+"@example.net")
		if r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		harness.Taken(t, s, way+"@example.net")
	}
}

// OpenSSL sees the version and the certificate, made for the host's name.
func TestOpenSSL(t *testing.T) {
	openssl := harness.Tool(t, "openssl")
	s := serveSecure(t, "starttls")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		r := harness.ExecuteTool(t, harness.Environ(t), "QUIT\n", openssl, "s_client", "-starttls", "smtp", "-crlf", "-quiet", version, "-connect", s.SMTP)
		if r.Code != 0 || !strings.Contains(r.Out, "221 2.0.0 Bye") {
			t.Errorf("%s: %+v", version, r)
		}
	}
	if conn, err := net.Dial("tcp", s.SMTP); err == nil {
		_ = conn.Close() // the relay lives
	} else {
		t.Error(err)
	}
}
