package clients

import (
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// recipe is a block of docs/recipes.md in a file, with the relay's port in the
// place of 2525.
func recipe(t *testing.T, s harness.Relay, name string) string {
	t.Helper()
	_, port := harness.HostPort(t, s.SMTP)
	path := filepath.Join(t.TempDir(), "recipe")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(recipeText(t, name), "2525", port)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func recipeText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(harness.File(t, "docs/recipes.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)<!-- recipe: ` + regexp.QuoteMeta(name) + " -->\n```[a-z]*\n(.*?)```\n").FindSubmatch(text)
	if m == nil {
		t.Fatalf("docs/recipes.md has no recipe %q", name)
	}
	return string(m[1])
}

// script is the program that follows the recipe.
func script(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// springJars is where Debian's Spring and what it needs are.
const springJars = "/usr/share/java/spring3-context.support.jar:/usr/share/java/spring3-context.jar:/usr/share/java/spring3-core.jar:" +
	"/usr/share/java/spring3-beans.jar:/usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar:/usr/share/java/commons-logging.jar"

func TestRecipes(t *testing.T) {
	for _, tt := range []struct {
		name, tool string
		library    string
		args       []string // before the recipe's file
	}{
		{"phpmailer", "php", "/usr/share/php/libphp-phpmailer/src/PHPMailer.php", []string{script(t, "phpmailer.php")}},
		{"wordpress", "php", "/usr/share/php/libphp-phpmailer/src/PHPMailer.php", []string{script(t, "phpmailer.php")}},
		{"django", "/usr/bin/python3", "/usr/lib/python3/dist-packages/django", []string{script(t, "django_mail.py")}},
		{"rails", "ruby", "/usr/share/rubygems-integration/all/gems/actionmailer-*", []string{script(t, "action_mailer.rb")}},
		{"gitlab", "ruby", "/usr/share/rubygems-integration/all/gems/actionmailer-*", []string{script(t, "action_mailer.rb")}},
		{"spring", "java", "/usr/share/java/spring3-context.support.jar", []string{"-cp", springJars, script(t, "SpringMail.java")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			program := harness.Tool(t, tt.tool)
			harness.Needs(t, tt.library)
			s := harness.ServeSandbox(t, "")
			r := harness.ExecuteTool(t, harness.Environ(t, "LANG=C.UTF-8"), "", program, append(tt.args, recipe(t, s, tt.name))...)
			if r.Code != 0 {
				t.Fatalf("%+v", r)
			}
			arrived(t, s, "bob@example.net", "Grüße", "Schöne Grüße!\n.\n.. dots\n")
			arrived(t, s, "eve@example.net", "Grüße", "Schöne Grüße!\n")
		})
	}
}

func TestRecipeForPHPIni(t *testing.T) {
	php := harness.Tool(t, "php")
	s, sendmail, env := underSendmail(t)
	ini := recipe(t, s, "php.ini")
	text, err := os.ReadFile(ini)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.ReplaceAll(string(text), "/usr/sbin/sendmail", sendmail))
	if err := os.WriteFile(ini, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := harness.ExecuteTool(t, env, "", php, "-c", ini, "-r", `exit(mail("bob@example.net", "Hello", "from php", "From: shop@sandbox.example") ? 0 : 1);`); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	arrived(t, s, "bob@example.net", "Hello", "from php")
}

// An alert goes all the way: into Alertmanager's API, out by mail.
func TestRecipeForAlertmanager(t *testing.T) {
	program := harness.Tool(t, "prometheus-alertmanager")
	s := harness.ServeSandbox(t, "")
	address := harness.FreeAddress(t)
	config := recipe(t, s, "alertmanager")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	// It gathers alerts for half a minute before it writes.
	text = []byte(strings.Replace(string(text), "route:\n", "route:\n  group_wait: 0s\n", 1))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	am := harness.LaunchCommand(t, harness.Environ(t), exec.Command(program, "--config.file", config,
		"--storage.path", t.TempDir(), "--web.listen-address", address, "--cluster.listen-address", ""))
	am.Await(am.Err, `(?i)listening`)
	alert := `[{"labels": {"alertname": "DiskFull"}, "annotations": {"summary": "it is full"}}]`
	resp, err := http.Post("http://"+address+"/api/v2/alerts", "application/json", strings.NewReader(alert))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	s.Await(s.Err, `to=ops@example\.com .*outcome=(accepted)`)
	calls := harness.CallsTo(t, s.Sandbox, "ops@example.com")
	if len(calls) != 1 || !strings.Contains(calls[0].Body.Subject, "DiskFull") {
		t.Errorf("the sandbox got %+v", calls)
	}
}

// A scanner says what scanners say, without TLS and with an old one.
func TestRecipeForPrinters(t *testing.T) {
	here := strings.NewReplacer("10.1.0.5:2525", "127.0.0.1:0", "10.1.0.5:2526", "127.0.0.1:0", "10.1.0.0/16", "127.0.0.0/8")
	// The listener of its own first: tables of the other recipe follow it.
	p := harness.Launch(t, harness.Environ(t), "serve", "--sandbox", "--config", harness.ConfigFile(t, here.Replace(recipeText(t, "old tls")+recipeText(t, "printer"))))
	m := p.Err.Await(regexp.MustCompile(`(?s)msg=listening address=(\S+:\d+).*msg=listening address=(\S+:\d+)`))
	if m == nil {
		t.Fatalf("it says %s", p.Err)
	}
	sandbox := p.Await(p.Out, `sandbox +http://(127\.0\.0\.1:\d+)/api`)
	scan := func(c *harness.Client, to string) {
		t.Helper()
		c.Do("HELO 10.1.0.77", "250 ", "MAIL FROM:<scanner>", "250 ", "RCPT TO:<"+to+">", "250 ", "DATA", "354 ",
			"From: scanner\r\nSubject: Scan 17\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"+
				"--b\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n"+
				"--b\r\nContent-Type: application/pdf; name=scan.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0=\r\n--b--\r\n.", "250 ", "QUIT", "221 ")
		calls := harness.CallsTo(t, sandbox, to)
		if len(calls) != 1 || calls[0].Body.Subject != "Scan 17" || !strings.Contains(calls[0].Body.Text, "See the file.") || !strings.Contains(calls[0].Body.Text, "scan.pdf") {
			t.Errorf("the API got %+v", calls)
		}
	}
	plain := harness.Dial(t, m[2])
	plain.Do("", "220 ")
	scan(plain, "bob@example.net")
	old := harness.Dial(t, m[1])
	old.Do("", "220 ", "EHLO 10.1.0.77", "250 ", "STARTTLS", "220 ")
	scan(harness.NewClient(t, tls.Client(old.Conn, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10, InsecureSkipVerify: true})), "eve@example.net")
}
