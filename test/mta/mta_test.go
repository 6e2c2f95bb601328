// Package mta has real mail servers hand mail to the relay: Postfix, Exim and
// Sendmail with it as their smarthost, and Postfix by LMTP. Each runs with a
// configuration, a queue and a port of the test's own, from where test/mta/unpack
// has put it; no service of the machine is touched.
package mta

import (
	"errors"
	"fmt"
	"net/smtp"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// unpacked is where test/mta/unpack put a mail server, and an environment in which
// its programs find their libraries.
func unpacked(t *testing.T, name string, more ...string) (tree string, env []string) {
	t.Helper()
	harness.AsRoot(t, name)
	tree = filepath.Join(harness.Cache(), "mta", name)
	if _, err := os.Stat(filepath.Join(tree, "complete")); err != nil {
		harness.Missing(t, "%s is not unpacked; run test/mta/unpack: %v", name, err)
	}
	libraries, err := filepath.Glob(filepath.Join(tree, "usr/lib/*-linux-gnu*"))
	if err != nil || len(libraries) == 0 {
		t.Fatalf("%s has no libraries: %v", tree, err)
	}
	path := append(libraries, filepath.Join(tree, "lib", filepath.Base(libraries[0])), filepath.Join(tree, "usr/lib/postfix"))
	return tree, harness.Environ(t, append(more, "LD_LIBRARY_PATH="+strings.Join(path, ":"))...)
}

// startPostfix returns its address and its log. transport is how it sends.
func startPostfix(t *testing.T, transport string) (address string, log func() string) {
	dir, port := spoolDir(t), harness.FreePort(t)
	conf := filepath.Join(dir, "conf")
	tree, env := unpacked(t, "postfix", "MAIL_CONFIG="+conf)
	for name, who := range map[string][2]string{
		"active": {"mail"}, "bounce": {"mail"}, "corrupt": {"mail"}, "defer": {"mail"}, "deferred": {"mail"}, "flush": {"mail"}, "hold": {"mail"},
		"incoming": {"mail"}, "private": {"mail"}, "saved": {"mail"}, "trace": {"mail"}, "maildrop": {"mail", "staff"}, "public": {"mail", "staff"}, "pid": {}, "../data": {"mail"}, "../conf": {},
	} {
		mkdirFor(t, filepath.Join(dir, "queue", name), who[0], who[1])
	}
	main := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
command_directory = %[2]s/usr/sbin
daemon_directory = %[2]s/usr/lib/postfix/sbin
shlib_directory = %[2]s/usr/lib/postfix
mail_owner = mail
setgid_group = staff
import_environment = MAIL_CONFIG LANG=C LD_LIBRARY_PATH
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mta.sandbox.example
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
default_transport = %[3]s
disable_dns_lookups = yes
alias_maps =
local_recipient_maps =
`, dir, tree, transport)
	var master strings.Builder
	fmt.Fprintf(&master, "127.0.0.1:%s inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n", port)
	for _, service := range strings.Fields("qmgr:qmgr pickup:pickup cleanup:cleanup rewrite:trivial-rewrite bounce:bounce defer:bounce trace:bounce flush:flush " +
		"smtp:smtp lmtp:lmtp error:error retry:error anvil:anvil scache:scache proxymap:proxymap tlsmgr:tlsmgr") {
		name, program, _ := strings.Cut(service, ":")
		private := "y"
		if name == "qmgr" || name == "pickup" || name == "cleanup" || name == "flush" {
			private = "n"
		}
		fmt.Fprintf(&master, "%s unix %s - n - 0 %s\n", name, private, program)
	}
	writeFile(t, filepath.Join(conf, "main.cf"), main)
	woken := strings.NewReplacer("qmgr unix n - n - 0", "qmgr unix n - n 300 1", "pickup unix n - n - 0", "pickup unix n - n 60 1")
	writeFile(t, filepath.Join(conf, "master.cf"), woken.Replace(master.String()))
	p := harness.LaunchCommand(t, env, exec.Command(filepath.Join(tree, "usr/lib/postfix/sbin/master"), "-c", conf, "-d"))
	log = func() string { text, _ := os.ReadFile(filepath.Join(dir, "log")); return string(text) }
	awaitServer(t, p, "127.0.0.1:"+port, log)
	return "127.0.0.1:" + port, log
}

// eximUser is the number of the user and the group that Exim runs as here.
const eximUser = 64999

// startExim returns its address and its log.
func startExim(t *testing.T, s harness.Relay) (address string, log func() string) {
	tree, env := unpacked(t, "exim")
	dir, port := spoolDir(t), harness.FreePort(t)
	for _, name := range []string{"spool", "log"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o755), os.Chown(filepath.Join(dir, name), eximUser, eximUser)); err != nil {
			t.Fatal(err)
		}
	}
	_, relayPort := harness.HostPort(t, s.SMTP)
	conf := filepath.Join(dir, "conf")
	writeFile(t, conf, fmt.Sprintf(`primary_hostname = mta.sandbox.example
exim_path = %[4]s/usr/sbin/exim4
spool_directory = %[1]s/spool
log_file_path = %[1]s/log/%%slog
pid_file_path = %[1]s/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = %[2]s
host_lookup =
keep_environment = LD_LIBRARY_PATH
tls_advertise_hosts =
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin routers
smarthost:
  driver = manualroute
  transport = remote
  route_list = * 127.0.0.1::%[3]s
  self = send
begin transports
remote:
  driver = smtp
begin retry
* * F,2h,1m
`, dir, port, relayPort, tree))
	// Debian's Exim runs as Debian-exim, whom only installing it makes a user.
	for name, line := range map[string]string{"passwd": "Debian-exim:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", "group": "Debian-exim:x:%d:\n"} {
		known, err := os.ReadFile(filepath.Join("/etc", name))
		if err != nil {
			t.Fatal(err)
		}
		args := []any{eximUser, eximUser}
		writeFile(t, filepath.Join(dir, name), fmt.Sprintf(line, args[:strings.Count(line, "%d")]...)+string(known))
	}
	p := harness.LaunchCommand(t, env, exec.Command("unshare", "--mount", "sh", "-c",
		`mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && shift && exec "$@"`, "sh", dir,
		filepath.Join(tree, "usr/sbin/exim4"), "-C", conf, "-bdf", "-q1h"))
	log = func() string { text, _ := os.ReadFile(filepath.Join(dir, "log", "mainlog")); return string(text) }
	awaitServer(t, p, "127.0.0.1:"+port, log)
	return "127.0.0.1:" + port, log
}

// startSendmail returns its address and its log, which has all that it said and
// heard.
func startSendmail(t *testing.T, s harness.Relay) (address string, log func() string) {
	tree, env := unpacked(t, "sendmail")
	dir, port := spoolDir(t), harness.FreePort(t)
	if err := os.Mkdir(filepath.Join(dir, "queue"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, relayPort := harness.HostPort(t, s.SMTP)
	writeFile(t, filepath.Join(dir, "switch"), "hosts files\n")
	writeFile(t, filepath.Join(dir, "mc"), fmt.Sprintf("OSTYPE(`linux')\n"+
		"define(`confPID_FILE', `%[1]s/pid')\ndefine(`QUEUE_DIR', `%[1]s/queue')\ndefine(`STATUS_FILE', `%[1]s/status')\n"+
		"define(`ALIAS_FILE', `')\ndefine(`confSERVICE_SWITCH_FILE', `%[1]s/switch')\ndefine(`confDONT_PROBE_INTERFACES', `True')\n"+
		"define(`SMART_HOST', `relay:[127.0.0.1]')\ndefine(`RELAY_MAILER_ARGS', `TCP $h %[2]s')\n"+
		"FEATURE(`nocanonify')\nFEATURE(`accept_unresolvable_domains')\nFEATURE(`promiscuous_relay')\nFEATURE(`no_default_msa')\n"+
		"DAEMON_OPTIONS(`Name=MTA, Addr=127.0.0.1, Port=%[3]s')\nMAILER(`smtp')\n", dir, relayPort, port))
	cf := filepath.Join(tree, "usr/share/sendmail/cf") + "/"
	made := harness.ExecuteTool(t, env, "", filepath.Join(tree, "usr/bin/m4"), "-D_CF_DIR_="+cf, cf+"m4/cf.m4", filepath.Join(dir, "mc"))
	if made.Code != 0 {
		t.Fatalf("m4: %+v", made)
	}
	writeFile(t, filepath.Join(dir, "cf"), made.Out)
	// Where the host's name has no domain, Sendmail waits a minute for one.
	p := harness.LaunchCommand(t, env, exec.Command("unshare", "--uts", "sh", "-c", `hostname mta.sandbox.example && exec "$@"`, "sh",
		filepath.Join(tree, "usr/libexec/sendmail/sendmail"), "-C"+filepath.Join(dir, "cf"), "-bD", "-q1h", "-X", filepath.Join(dir, "log")))
	log = func() string { text, _ := os.ReadFile(filepath.Join(dir, "log")); return string(text) }
	awaitServer(t, p, "127.0.0.1:"+port, log)
	return "127.0.0.1:" + port, log
}

// spoolDir is a directory that users other than the test's can enter.
func spoolDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smtp2rest-mta-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mkdirFor(t *testing.T, dir, owner, group string) {
	t.Helper()
	id := func(name string, look func(string) (string, error)) int {
		if name == "" {
			return -1
		}
		s, err := look(name)
		if err != nil {
			t.Skipf("this machine has no %s: %v", name, err)
		}
		n, _ := strconv.Atoi(s)
		return n
	}
	uid := id(owner, func(s string) (string, error) { u, err := user.Lookup(s); return u.Uid, err })
	gid := id(group, func(s string) (string, error) { g, err := user.LookupGroup(s); return g.Gid, err })
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chown(dir, uid, gid)); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// awaitServer returns when a server greets.
func awaitServer(t *testing.T, p *harness.Process, address string, log func() string) {
	t.Helper()
	harness.PollUntil(t, "the server greets", func() bool {
		select {
		case <-p.Done:
			t.Fatalf("the server ended: %s%s%s", p.Out, p.Err, log())
		default:
		}
		c, err := smtp.Dial(address)
		if err != nil {
			return false
		}
		return c.Quit() == nil
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log())
		}
	})
}

// through hands the usual mail to a server.
func through(t *testing.T, address string, to ...string) {
	t.Helper()
	if err := smtp.SendMail(address, nil, "zoe@sandbox.example", to, []byte(harness.ClientMail)); err != nil {
		t.Fatal(err)
	}
}

// awaitBounce waits for a bounce to the sender and checks whom it is about.
func awaitBounce(t *testing.T, s harness.Relay, about string) {
	t.Helper()
	harness.PollUntil(t, "the sender has a bounce", func() bool { return len(harness.CallsTo(t, s.Sandbox, "zoe@sandbox.example")) > 0 })
	calls := harness.CallsTo(t, s.Sandbox, "zoe@sandbox.example")
	if text := calls[0].Body.Text; len(calls) != 1 || !strings.Contains(text, about) || strings.Contains(text, "eve@") {
		t.Errorf("there are %d bounces; the first says\n%s", len(calls), text)
	}
}

func awaitCall(t *testing.T, s harness.Relay, to string) {
	t.Helper()
	harness.PollUntil(t, "the API has the mail for "+to, func() bool { return len(harness.CallsTo(t, s.Sandbox, to)) > 0 })
	harness.Taken(t, s, to)
}

// A mail server that is told 550 bounces by itself; one that is told 250 with
// an exception leaves it to the relay.
func TestPostfixSmarthost(t *testing.T) {
	t.Parallel()
	s := harness.ServeSandbox(t, "")
	address, log := startPostfix(t, "smtp:["+strings.Replace(s.SMTP, ":", "]:", 1))
	through(t, address, "bob@example.net", "eve@example.net")
	awaitCall(t, s, "bob@example.net")
	awaitCall(t, s, "eve@example.net")
	through(t, address, "suppressed@example.net")
	awaitBounce(t, s, "suppressed@example.net")
	if l := log(); !strings.Contains(l, "status=sent (250 2.0.0 accepted ") || !strings.Contains(l, "said: 550 5.7.1 suppressed: <suppressed@example.net>") {
		t.Error("Postfix was not told the truth")
	}
}

func TestEximSmarthost(t *testing.T) {
	t.Parallel()
	s := harness.ServeSandbox(t, "")
	address, log := startExim(t, s)
	through(t, address, "bob@example.net", "eve@example.net")
	awaitCall(t, s, "bob@example.net")
	awaitCall(t, s, "eve@example.net")
	through(t, address, "suppressed@example.net")
	awaitBounce(t, s, "suppressed@example.net")
	if l := log(); !strings.Contains(l, `C="250 2.0.0 accepted `) || !strings.Contains(l, "550 5.7.1 suppressed: <suppressed@example.net>") {
		t.Error("Exim was not told the truth")
	}
}

// Where a login is offered, Sendmail says with AUTH= who handed it the mail (RFC
// 4954 section 5): "<>" when it does not trust what its own client said of that.
func TestSendmailSmarthost(t *testing.T) {
	t.Parallel()
	s := harness.ServeSandbox(t, "tls = \"starttls\"\nself_signed = true\n[[user]]\nname = \"ann\"\n"+
		"password_hash = \"$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq\"\n")
	address, log := startSendmail(t, s)
	through(t, address, "bob@example.net")
	awaitCall(t, s, "bob@example.net")
	c := harness.Dial(t, address)
	c.Do("", "220 ", "EHLO client.example", "250", "MAIL FROM:<zoe@sandbox.example> AUTH=zoe+2Bx@sandbox.example BODY=8BITMIME", "250 ", "RCPT TO:<eve@example.net>", "250 ",
		"DATA", "354 ", strings.TrimSuffix(strings.ReplaceAll(harness.ClientMail, "\r\n.", "\r\n.."), "\r\n")+"\r\n.", "250 ", "QUIT", "221 ")
	awaitCall(t, s, "eve@example.net")
	through(t, address, "suppressed@example.net")
	awaitBounce(t, s, "suppressed@example.net")
	l := log()
	for _, want := range []string{">>> STARTTLS", " AUTH=<>", "250 2.0.0 accepted ", "550 5.7.1 suppressed: <suppressed@example.net>"} {
		if !strings.Contains(l, want) {
			t.Errorf("Sendmail's conversation has no %q", want)
		}
	}
}

// By LMTP Postfix hears of each recipient, and bounces for those refused; the
// relay then does not.
func TestPostfixLMTP(t *testing.T) {
	t.Parallel()
	s := harness.ServeSandbox(t, "protocol = \"lmtp\"\n")
	address, log := startPostfix(t, "lmtp:inet:"+s.SMTP)
	through(t, address, "bob@example.net", "suppressed@example.net", "eve@example.net", "down+1@example.net")
	awaitCall(t, s, "bob@example.net")
	awaitCall(t, s, "eve@example.net")
	awaitBounce(t, s, "suppressed@example.net")
	for _, want := range []string{
		"to=<bob@example.net>", "status=sent (250 2.0.0 <bob@example.net> accepted ",
		"to=<suppressed@example.net>", "said: 550 5.7.1 <suppressed@example.net> suppressed: <suppressed@example.net>",
		"status=sent (250 2.0.0 <down+1@example.net> queued ",
	} {
		if !strings.Contains(log(), want) {
			t.Errorf("Postfix was not told %q", want)
		}
	}
	// What was queued for one arrives once, and nothing else does again.
	harness.PollUntil(t, "the queued one is sent", func() bool { return len(harness.CallsTo(t, s.Sandbox, "down+1@example.net")) > 1 })
	for _, to := range []string{"bob@example.net", "eve@example.net", "suppressed@example.net", "zoe@sandbox.example"} {
		if n := len(harness.CallsTo(t, s.Sandbox, to)); n != 1 {
			t.Errorf("the sandbox got %d calls for %s", n, to)
		}
	}
}

// A relay that is away costs no mail: the server in front keeps it.
func TestPostfixWaitsForTheRelay(t *testing.T) {
	t.Parallel()
	port := harness.FreePort(t)
	address, log := startPostfix(t, "smtp:[127.0.0.1]:"+port)
	through(t, address, "bob@example.net")
	harness.PollUntil(t, "Postfix defers the mail", func() bool { return strings.Contains(log(), "status=deferred") })
	s := harness.ServeSandboxAt(t, "127.0.0.1:"+port, "")
	conf := regexp.MustCompile(`configuration (\S+)`).FindStringSubmatch(log())
	tree, env := unpacked(t, "postfix")
	if r := harness.ExecuteTool(t, env, "", filepath.Join(tree, "usr/sbin/postqueue"), "-c", conf[1], "-f"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	awaitCall(t, s, "bob@example.net")
}
