package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
)

func hashOf(t *testing.T, password string) string {
	t.Helper()
	r := execute(t, environ(t), password+"\n", "hash-password")
	if r.code != 0 || r.err != "" {
		t.Fatalf("%+v", r)
	}
	return strings.TrimSpace(r.out)
}

func TestHashPassword(t *testing.T) {
	form := regexp.MustCompile(`^\$2a\$10\$[./A-Za-z0-9]{53}$`)
	if a, b := hashOf(t, "hunter2"), hashOf(t, "hunter2"); !form.MatchString(a) || !form.MatchString(b) || a == b {
		t.Errorf("%s and %s", a, b)
	}
	if r := execute(t, environ(t), "no line end", "hash-password", "--user", "app"); r.code != 0 || !strings.HasPrefix(r.out, "app:$2a$") {
		t.Errorf("%+v", r)
	}
	for name, tt := range map[string]struct {
		stdin string
		args  []string
		code  int
	}{
		"nothing":    {"", nil, terminal.ExitFailed},
		"empty":      {"\n", nil, terminal.ExitFailed},
		"long":       {strings.Repeat("x", 73), nil, terminal.ExitFailed},
		"argument":   {"x\n", []string{"hunter2"}, terminal.ExitUsage},
		"user name":  {"x\n", []string{"--user", "a:b"}, terminal.ExitUsage},
		"user space": {"x\n", []string{"--user", " a"}, terminal.ExitUsage},
	} {
		r := execute(t, environ(t), tt.stdin, append([]string{"hash-password"}, tt.args...)...)
		if r.code != tt.code || r.out != "" || strings.Contains(r.err, "hunter2") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// serveSecure is a relay in which everybody logs in, as app with hunter2.
func serveSecure(t *testing.T, mode string) relayed {
	t.Helper()
	return serveSandbox(t, fmt.Sprintf(`tls = %q
self_signed = true
min_tls = "1.0"
auth_without_tls = false
require_auth = true
[[user]]
name = "app"
password_hash = %q
senders = ["@sandbox.example"]
`, mode, hashOf(t, "hunter2")))
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
	python := tool(t, "python3")
	for _, mode := range []string{"starttls", "implicit"} {
		t.Run(mode, func(t *testing.T) {
			s := serveSecure(t, mode)
			host, port := hostPort(t, s.smtp)
			r := executeTool(t, environ(t, "PYTHONUTF8=1"), "", python, "-c", secureSMTPLib, host, port, mode, clientSubject, clientText)
			if r.code != 0 {
				t.Fatalf("%+v", r)
			}
			taken(t, s, "bob@example.net")
			want := []string{"before 530", "wrong 535", "login (235,", "sender 553", "refused {}"}
			if mode == "starttls" {
				want = append(want, "clear False (538,")
			}
			for _, w := range want {
				if !strings.Contains(r.out, w) {
					t.Errorf("smtplib was not told %q:\n%s", w, r.out)
				}
			}
		})
	}
}

func TestSwaksSecure(t *testing.T) {
	swaks := tool(t, "swaks")
	if r := executeTool(t, environ(t), "", swaks, "--support"); !strings.Contains(r.out, "=== TLS supported") {
		t.Skip("this swaks has no TLS: Net::SSLeay is not installed")
	}
	s := serveSecure(t, "starttls")
	host, port := hostPort(t, s.smtp)
	send := func(more ...string) result {
		return executeTool(t, environ(t), clientMail, swaks, append([]string{"--server", host, "--port", port, "--helo", "client.test",
			"--from", "zoe@sandbox.example", "--to", "bob@example.net", "--data", "-"}, more...)...)
	}
	if r := send("--tls", "--auth", "LOGIN", "--auth-user", "app", "--auth-password", "hunter2"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	taken(t, s, "bob@example.net")
	for want, more := range map[string][]string{
		"530 5.7.0": {"--tls"},
		"535 5.7.8": {"--tls", "--auth", "PLAIN", "--auth-user", "app", "--auth-password", "wrong"},
	} {
		if r := send(more...); r.code == 0 || !strings.Contains(r.all(), want) {
			t.Errorf("%s: %+v", want, r)
		}
	}
}

func TestCurlSecure(t *testing.T) {
	curl := tool(t, "curl")
	for _, scheme := range []string{"smtp", "smtps"} {
		s := serveSecure(t, map[string]string{"smtp": "starttls", "smtps": "implicit"}[scheme])
		r := executeTool(t, environ(t), "", curl, "-sS", "-v", scheme+"://"+s.smtp, "--ssl-reqd", "-k", "--user", "app:hunter2",
			"--mail-from", "zoe@sandbox.example", "--mail-rcpt", "bob@example.net", "--upload-file", mailFile(t))
		if r.code != 0 {
			t.Fatalf("%+v", r)
		}
		taken(t, s, "bob@example.net")
	}
}

func TestMSMTPSecure(t *testing.T) {
	msmtp := tool(t, "msmtp")
	s := serveSecure(t, "starttls")
	host, port := hostPort(t, s.smtp)
	for _, way := range []string{"plain", "login"} {
		r := executeTool(t, environ(t), strings.ReplaceAll(clientMail, "\r\n", "\n"), msmtp, "--host="+host, "--port="+port, "--domain=client.test",
			"--tls=on", "--tls-certcheck=off", "--auth="+way, "--user=app", "--passwordeval=echo hunter2", "--from=zoe@sandbox.example", way+"@example.net")
		if r.code != 0 {
			t.Fatalf("%+v", r)
		}
		taken(t, s, way+"@example.net")
	}
}

// OpenSSL sees the version and the certificate, made for the host's name.
func TestOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	s := serveSecure(t, "starttls")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		r := executeTool(t, environ(t), "QUIT\n", openssl, "s_client", "-starttls", "smtp", "-crlf", "-quiet", version, "-connect", s.smtp)
		if r.code != 0 || !strings.Contains(r.out, "221 2.0.0 Bye") {
			t.Errorf("%s: %+v", version, r)
		}
	}
	if conn, err := net.Dial("tcp", s.smtp); err == nil {
		_ = conn.Close() // the relay lives
	} else {
		t.Error(err)
	}
}

// What is wrong with users is told before anything starts, without a secret.
func TestUsersFile(t *testing.T) {
	dir := t.TempDir()
	users := filepath.Join(dir, "users")
	check := func(text string) result {
		if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return execute(t, environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=a@b.test"), "", "check", "--config",
			configFile(t, fmt.Sprintf("users_file = %q\n[[listener]]\nrequire_auth = true\n", users)))
	}
	hash := hashOf(t, "hunter2")
	if r := check("app:" + hash + "\n"); r.code != 0 || strings.Contains(r.all(), hash) {
		t.Errorf("%+v", r)
	}
	if r := check("app:hunter2\n"); r.code != terminal.ExitConfig || strings.Contains(r.all(), "hunter2") || !strings.Contains(r.err, "line 1: ") {
		t.Errorf("%+v", r)
	}
	if r := check(""); r.code != terminal.ExitConfig || !strings.Contains(r.err, "nobody who could log in") {
		t.Errorf("%+v", r)
	}
}
