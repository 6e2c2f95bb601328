package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// underSendmail is a relay, the program sendmail that leads to it, and an
// environment in which it does.
func underSendmail(t *testing.T) (s harness.Relay, sendmail string, env []string) {
	t.Helper()
	s = harness.ServeSandbox(t, "")
	return s, harness.Linked(t, "sendmail"), harness.Environ(t, "SMTP2REST_SMTP="+s.SMTP, "LANG=C.UTF-8", "USER=zoe", "LOGNAME=zoe")
}

// arrived checks a mail that the API got once.
func arrived(t *testing.T, s harness.Relay, to, subject, text string) {
	t.Helper()
	calls := harness.CallsTo(t, s.Sandbox, to)
	if len(calls) != 1 {
		t.Fatalf("the sandbox got %d calls for %s", len(calls), to)
	}
	if b := calls[0].Body; b.Subject != subject || !strings.Contains(b.Text, text) {
		t.Errorf("the sandbox got %+v", b)
	}
}

const phpMail = `
var_dump(mail("Bob <bob@example.net>", "=?utf-8?b?R3LDvMOfZQ==?=", "Schöne Grüße!\n.\n.. dots\n",
  "From: Shop <shop@sandbox.example>\r\nBcc: eve@example.net\r\nContent-Type: text/plain; charset=utf-8", "-fshop@sandbox.example"));
var_dump(mail("suppressed@example.net", "s", "b"));
`

func TestPHPMail(t *testing.T) {
	php := harness.Tool(t, "php")
	s, sendmail, env := underSendmail(t)
	r := harness.ExecuteTool(t, env, "", php, "-n", "-d", "sendmail_path="+sendmail+" -t -i", "-r", phpMail)
	if r.Code != 0 || !strings.HasPrefix(r.Out, "bool(true)\nbool(false)\n") || !strings.Contains(r.Err, "sendmail: mail: 550 5.7.1 suppressed") {
		t.Fatalf("%+v", r)
	}
	arrived(t, s, "bob@example.net", "Grüße", "Schöne Grüße!\n.\n.. dots\n")
	arrived(t, s, "eve@example.net", "Grüße", "Schöne Grüße!\n")
}

const patch = `From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001
From: Zoe <zoe@sandbox.example>
Date: Mon, 30 Nov 2026 10:00:00 +0000
Subject: [PATCH] Mend the fence

---
 fence | 2 +-
`

func TestGitSendEmail(t *testing.T) {
	git := harness.Tool(t, "git")
	s, sendmail, env := underSendmail(t)
	// Debian's lacks a module of Perl without the package libmailtools-perl.
	if r := harness.ExecuteTool(t, env, "", git, "send-email", "-h"); strings.Contains(r.Err, "is not a git command") || strings.Contains(r.Err, "Mail::Address") {
		harness.Missing(t, "git send-email is not installed: %s", r.Err)
	}
	file := filepath.Join(t.TempDir(), "0001.patch")
	if err := os.WriteFile(file, []byte(patch), 0o600); err != nil {
		t.Fatal(err)
	}
	r := harness.ExecuteTool(t, env, "", git, "-c", "user.name=Zoe", "-c", "user.email=zoe@sandbox.example", "send-email", "--smtp-server="+sendmail,
		"--envelope-sender=zoe@sandbox.example", "--confirm=never", "--to=bob@example.net", "--cc=eve@example.net", "--suppress-cc=all", file)
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	arrived(t, s, "bob@example.net", "[PATCH] Mend the fence", "fence | 2 +-")
	arrived(t, s, "eve@example.net", "[PATCH] Mend the fence", "fence | 2 +-")
}

func TestMutt(t *testing.T) {
	mutt := harness.Tool(t, "mutt")
	s, sendmail, env := underSendmail(t)
	rc := filepath.Join(t.TempDir(), "rc")
	text := "set sendmail=\"" + sendmail + " -oem -oi\"\nset from=zoe@sandbox.example use_envelope_from=yes copy=no\n"
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := harness.ExecuteTool(t, env, "Schöne Grüße!\n.\n", mutt, "-n", "-F", rc, "-s", harness.ClientSubject, "-b", "eve@example.net", "--", "bob@example.net")
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	arrived(t, s, "bob@example.net", harness.ClientSubject, "Schöne Grüße!\n.\n")
	arrived(t, s, "eve@example.net", harness.ClientSubject, "Schöne Grüße!\n.\n")
}

func TestSNail(t *testing.T) {
	snail := harness.Tool(t, "s-nail")
	s, sendmail, env := underSendmail(t)
	send := func(to string) harness.Result {
		return harness.ExecuteTool(t, env, "Schöne Grüße!\n", snail, "-:/", "-S", "v15-compat", "-S", "mta="+sendmail, "-S", "sendwait", "-S", "ttycharset=utf-8",
			"-r", "zoe@sandbox.example", "-s", harness.ClientSubject, to)
	}
	if r := send("bob@example.net"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	arrived(t, s, "bob@example.net", harness.ClientSubject, "Schöne Grüße!\n")
	if r := send("suppressed@example.net"); r.Code == 0 || !strings.Contains(r.Err, "550 5.7.1") {
		t.Errorf("%+v", r)
	}
}

// cronScript gives cron a machine of its own, as far as it looks: Debian's has
// the paths built in. A job @reboot runs when it starts.
const cronScript = `
set -e
lay() {
	mkdir -p "$DIR/$1/up" "$DIR/$1/work"
	mount -t overlay overlay -o "lowerdir=/$2,upperdir=$DIR/$1/up,workdir=$DIR/$1/work" "/$2"
}
lay etc etc
lay sbin usr/sbin
ln -sf "$BINARY" /usr/sbin/sendmail
mkdir -p /etc/smtp2rest
echo "server = $SERVER" > /etc/smtp2rest/sendmail.conf
rm -f /etc/cron.d/*
: > /etc/crontab
mount -t tmpfs none /run
mount -t tmpfs none /var/spool/cron/crontabs
printf 'MAILTO=bob@example.net\n@reboot echo "3 files copied"; echo .; echo done\n' > /var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
exec cron -f
`

func TestCron(t *testing.T) {
	harness.Tool(t, "cron")
	if os.Getuid() != 0 {
		t.Skip("cron runs as root only")
	}
	probe := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "unshare", "-m", "mount", "-t", "tmpfs", "none", probe).CombinedOutput(); err != nil {
		t.Skipf("this machine allows no mounts of one's own, and cron looks at fixed paths: %v %s", err, out)
	}
	s := harness.ServeSandbox(t, "")
	cmd := exec.Command("unshare", "-m", "sh", "-c", cronScript)
	cmd.Env = harness.Environ(t, "DIR="+t.TempDir(), "BINARY="+harness.Binary(t), "SERVER="+s.SMTP)
	out := harness.NewStream()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait(); out.End() }()
	stop := func() { _ = cmd.Process.Kill(); <-ended }
	t.Cleanup(stop)
	sent := make(chan struct{})
	go func() { defer close(sent); s.Await(s.Err, `msg=recipient .*to=bob@example.net`) }()
	select {
	case <-sent:
	case <-ended:
		t.Fatalf("cron ended: %s", out)
	case <-time.After(harness.Patience):
		t.Fatalf("no mail came: %s", out)
	}
	stop()
	calls := harness.CallsTo(t, s.Sandbox, "bob@example.net")
	if len(calls) != 1 || !strings.HasPrefix(calls[0].Body.Subject, "Cron <root@") || calls[0].Body.Text != "3 files copied\n.\ndone\n" || calls[0].Body.From.Name != "Cron Daemon" {
		t.Errorf("the sandbox got %+v", calls)
	}
}
