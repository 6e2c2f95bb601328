package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Swaks in every way of logging in that it shares with the relay, through
// every kind of TLS.
func TestSwaksEveryWay(t *testing.T) {
	swaks := tool(t, "swaks")
	if r := executeTool(t, environ(t), "", swaks, "--support"); !strings.Contains(r.out, "=== TLS supported") {
		t.Skip("this swaks has no TLS: Net::SSLeay is not installed")
	}
	for mode, options := range map[string][]string{"none": nil, "starttls": {"--tls"}, "implicit": {"--tls-on-connect"}} {
		s := serveLogins(t, mode)
		host, port := hostPort(t, s.smtp)
		for _, way := range []string{"PLAIN", "LOGIN", "ANY"} {
			for _, password := range []string{"hunter2", "wrong"} {
				to := strings.ToLower(way) + "@example.net"
				args := append([]string{"--server", host, "--port", port, "--helo", "[192.0.2.1]", "--from", "zoe@sandbox.example", "--to", to, "--data", "-",
					"--auth", way, "--auth-user", "app", "--auth-password", password}, options...)
				r := executeTool(t, environ(t), clientMail, swaks, args...)
				if password == "wrong" {
					if r.code == 0 || !strings.Contains(r.all(), "535 5.7.8") {
						t.Errorf("%s %s with a wrong password: %+v", mode, way, r)
					}
					continue
				}
				if r.code != 0 {
					t.Fatalf("%s %s: %+v", mode, way, r)
				}
				taken(t, s, to)
			}
		}
	}
}

// serveLogins is serveSecure, with passwords in the clear where there is no TLS.
func serveLogins(t *testing.T, mode string) relayed {
	t.Helper()
	if mode != "none" {
		return serveSecure(t, mode)
	}
	return serveSandbox(t, fmt.Sprintf("require_auth = true\n[[user]]\nname = \"app\"\npassword_hash = %q\n", hashOf(t, "hunter2")))
}

const phpMailer = `
require "/usr/share/php/libphp-phpmailer/autoload.php";
use PHPMailer\PHPMailer\PHPMailer;
[, $host, $port, $secure, $auth, $subject, $text] = $argv;
foreach (["bob@example.net", "invalid@example.net"] as $to) {
  $m = new PHPMailer();
  $m->isSMTP();
  $m->Host = $host; $m->Port = (int)$port; $m->CharSet = "utf-8";
  $m->SMTPSecure = $secure; $m->SMTPAutoTLS = false;
  $m->SMTPOptions = ["ssl" => ["verify_peer" => false, "verify_peer_name" => false, "allow_self_signed" => true]];
  $m->SMTPAuth = $auth != ""; $m->AuthType = $auth; $m->Username = "app"; $m->Password = "hunter2";
  $m->setFrom("zoe@sandbox.example", "Zoë");
  $m->addAddress($to, "Bob");
  $m->Subject = $subject;
  $m->Body = "<p>Schöne <b>Grüße</b>!</p>"; $m->AltBody = $text; $m->isHTML(true);
  var_dump($m->send());
  echo $m->ErrorInfo, "\n";
}
`

func TestPHPMailer(t *testing.T) {
	php := tool(t, "php")
	if _, err := os.Stat("/usr/share/php/libphp-phpmailer/autoload.php"); err != nil {
		if realClients() {
			t.Fatalf("SMTP2REST_REAL_CLIENTS is set, and libphp-phpmailer is not installed: %v", err)
		}
		t.Skip("libphp-phpmailer is not installed")
	}
	for _, tt := range []struct{ mode, secure, auth string }{{"none", "", ""}, {"none", "", "LOGIN"}, {"starttls", "tls", "PLAIN"}, {"implicit", "ssl", "LOGIN"}} {
		s := serveSandbox(t, "")
		if tt.auth != "" {
			s = serveLogins(t, tt.mode)
		}
		host, port := hostPort(t, s.smtp)
		r := executeTool(t, environ(t), "", php, "-r", phpMailer, "--", host, port, tt.secure, tt.auth, clientSubject, clientText)
		if r.code != 0 || !strings.HasPrefix(r.out, "bool(true)\n\nbool(false)\n") || !strings.Contains(r.out, "refused by the API") {
			t.Fatalf("%+v: %+v", tt, r)
		}
		taken(t, s, "bob@example.net")
	}
}

// A device that never heard of anything since 1999: no domain, an address for
// a name, a space behind the colon, lone line feeds, lines of 3,000 characters,
// fifty recipients, and a password in two steps.
func TestAnOldDevice(t *testing.T) {
	s := serveSandbox(t, fmt.Sprintf("[aliases]\nroot = [\"ops@example.net\"]\n[[user]]\nname = \"app\"\npassword_hash = %q\n", hashOf(t, "hunter2")))
	c := dial(t, s.smtp)
	c.do("", "220 ", "HELO 192.0.2.1", "250 ", "AUTH LOGIN", "334 VXNlcm5hbWU6", "YXBw", "334 UGFzc3dvcmQ6", "aHVudGVyMg==", "235 ",
		"MAIL FROM: scanner", "250 ", "RCPT TO:<root>", "250 ")
	for n := range 49 {
		c.do(fmt.Sprintf("RCPT TO: bob%d@example.net", n), "250 ")
	}
	c.do("DATA", "354 ", "Subject: Scan\n\n"+strings.Repeat("x", 3000)+"\n..\nend\r\n.", "250 2.0.0 accepted ")
	for _, to := range []string{"ops@example.net", "bob0@example.net", "bob48@example.net"} {
		calls := callsTo(t, s.sandbox, to)
		if len(calls) != 1 || calls[0].Body.Text != strings.Repeat("x", 3000)+"\n.\nend\n" || calls[0].Body.From.Email != "scanner@sandbox.example" {
			t.Fatalf("%s got %q from %+v", to, calls[0].Body.Text[2900:], calls[0].Body.From)
		}
	}
	c.do("AUTH LOGIN YXBw", "503 ", "QUIT", "221 ")
	again := dial(t, s.smtp)
	again.do("", "220 ", "HELO [192.0.2.1]", "250 ", "AUTH LOGIN YXBw", "334 UGFzc3dvcmQ6", "aHVudGVyMg==", "235 ")
}

// TLS 1.0 is spoken where a listener says so, and nowhere else.
func TestAnOldDeviceWithTLS(t *testing.T) {
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10,
		CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA}}
	for _, tt := range []struct {
		more string
		good bool
	}{{"min_tls = \"1.0\"\n", true}, {"", false}} {
		s := serveSandbox(t, "tls = \"implicit\"\nself_signed = true\n"+tt.more)
		conn, err := tls.Dial("tcp", s.smtp, old)
		if (err == nil) != tt.good {
			t.Fatalf("%q: %v", tt.more, err)
		}
		if err != nil {
			continue
		}
		c := newClient(t, conn)
		c.do("", "220 ", "HELO printer", "250 ", "MAIL FROM:<zoe@sandbox.example>", "250 ", "RCPT TO:<bob@example.net>", "250 ", "DATA", "354 ", "Subject: s\r\n\r\nb\r\n.", "250 2.0.0 accepted ")
	}
}
