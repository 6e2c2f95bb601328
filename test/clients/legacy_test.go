package clients

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// Swaks in every way of logging in that it shares with the relay, through
// every kind of TLS.
func TestSwaksEveryWay(t *testing.T) {
	swaks := harness.Tool(t, "swaks")
	if r := harness.ExecuteTool(t, harness.Environ(t), "", swaks, "--support"); !strings.Contains(r.Out, "=== TLS supported") {
		harness.Missing(t, "this swaks has no TLS: Net::SSLeay is not installed")
	}
	for mode, options := range map[string][]string{"none": nil, "starttls": {"--tls"}, "implicit": {"--tls-on-connect"}} {
		s := serveLogins(t, mode)
		host, port := harness.HostPort(t, s.SMTP)
		for _, way := range []string{"PLAIN", "LOGIN", "ANY"} {
			for _, password := range []string{"hunter2", "wrong"} {
				to := strings.ToLower(way) + "@example.net"
				args := append([]string{"--server", host, "--port", port, "--helo", "[192.0.2.1]", "--from", "zoe@sandbox.example", "--to", to, "--data", "-",
					"--auth", way, "--auth-user", "app", "--auth-password", password}, options...)
				r := harness.ExecuteTool(t, harness.Environ(t), harness.ClientMail, swaks, args...)
				if password == "wrong" {
					if r.Code == 0 || !strings.Contains(r.All(), "535 5.7.8") {
						t.Errorf("%s %s with a wrong password: %+v", mode, way, r)
					}
					continue
				}
				if r.Code != 0 {
					t.Fatalf("%s %s: %+v", mode, way, r)
				}
				harness.Taken(t, s, to)
			}
		}
	}
}

// serveLogins is serveSecure, with passwords in the clear where there is no TLS.
func serveLogins(t *testing.T, mode string) harness.Relay {
	t.Helper()
	if mode != "none" {
		return serveSecure(t, mode)
	}
	return harness.ServeSandbox(t, fmt.Sprintf("require_auth = true\n[[user]]\nname = \"app\"\npassword_hash = %q\n", harness.HashOf(t, "hunter2")))
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
	php := harness.Tool(t, "php")
	harness.Needs(t, "/usr/share/php/libphp-phpmailer/autoload.php")
	for _, tt := range []struct{ mode, secure, auth string }{{"none", "", ""}, {"none", "", "LOGIN"}, {"starttls", "tls", "PLAIN"}, {"implicit", "ssl", "LOGIN"}} {
		s := harness.ServeSandbox(t, "")
		if tt.auth != "" {
			s = serveLogins(t, tt.mode)
		}
		host, port := harness.HostPort(t, s.SMTP)
		r := harness.ExecuteTool(t, harness.Environ(t), "", php, "-r", phpMailer, "--", host, port, tt.secure, tt.auth, harness.ClientSubject, harness.ClientText)
		if r.Code != 0 || !strings.HasPrefix(r.Out, "bool(true)\n\nbool(false)\n") || !strings.Contains(r.Out, "refused by the API") {
			t.Fatalf("%+v: %+v", tt, r)
		}
		harness.Taken(t, s, "bob@example.net")
	}
}

// A device that never heard of anything since 1999: no domain, an address for
// a name, a space behind the colon, lone line feeds, lines of 3,000 characters,
// fifty recipients, and a password in two steps.
func TestAnOldDevice(t *testing.T) {
	s := harness.ServeSandbox(t, fmt.Sprintf("[aliases]\nroot = [\"ops@example.net\"]\n[[user]]\nname = \"app\"\npassword_hash = %q\n", harness.HashOf(t, "hunter2")))
	c := harness.Dial(t, s.SMTP)
	c.Do("", "220 ", "HELO 192.0.2.1", "250 ", "AUTH LOGIN", "334 VXNlcm5hbWU6", "YXBw", "334 UGFzc3dvcmQ6", "aHVudGVyMg==", "235 ",
		"MAIL FROM: scanner", "250 ", "RCPT TO:<root>", "250 ")
	for n := range 49 {
		c.Do(fmt.Sprintf("RCPT TO: bob%d@example.net", n), "250 ")
	}
	c.Do("DATA", "354 ", "Subject: Scan\n\n"+strings.Repeat("x", 3000)+"\n..\nend\r\n.", "250 2.0.0 accepted ")
	for _, to := range []string{"ops@example.net", "bob0@example.net", "bob48@example.net"} {
		calls := harness.CallsTo(t, s.Sandbox, to)
		if len(calls) != 1 || calls[0].Body.Text != strings.Repeat("x", 3000)+"\n.\nend\n" || calls[0].Body.From.Email != "scanner@sandbox.example" {
			t.Fatalf("%s got %q from %+v", to, calls[0].Body.Text[2900:], calls[0].Body.From)
		}
	}
	c.Do("AUTH LOGIN YXBw", "503 ", "QUIT", "221 ")
	again := harness.Dial(t, s.SMTP)
	again.Do("", "220 ", "HELO [192.0.2.1]", "250 ", "AUTH LOGIN YXBw", "334 UGFzc3dvcmQ6", "aHVudGVyMg==", "235 ")
}

// TLS 1.0 is spoken where a listener says so, and nowhere else.
func TestAnOldDeviceWithTLS(t *testing.T) {
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10,
		CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA}}
	for _, tt := range []struct {
		more string
		good bool
	}{{"min_tls = \"1.0\"\n", true}, {"", false}} {
		s := harness.ServeSandbox(t, "tls = \"implicit\"\nself_signed = true\n"+tt.more)
		conn, err := tls.Dial("tcp", s.SMTP, old)
		if (err == nil) != tt.good {
			t.Fatalf("%q: %v", tt.more, err)
		}
		if err != nil {
			continue
		}
		c := harness.NewClient(t, conn)
		c.Do("", "220 ", "HELO printer", "250 ", "MAIL FROM:<zoe@sandbox.example>", "250 ", "RCPT TO:<bob@example.net>", "250 ", "DATA", "354 ", "Subject: s\r\n\r\nb\r\n.", "250 2.0.0 accepted ")
	}
}
