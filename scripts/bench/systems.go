package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/load"
)

type bench struct {
	options
	binaries    map[string]string // builds of smtp2rest, by the name of the system
	certificate tls.Certificate   // of the sink
	pem         []byte
}

const warmUp = time.Second

// measure starts one system and runs one load.
func (b *bench) measure(ctx context.Context, m measurement) (figures, error) {
	sink, err := b.sink(m)
	if err != nil {
		return figures{}, err
	}
	defer sink.Close()
	p, err := b.start(m, sink.Address())
	if err != nil {
		return figures{}, err
	}
	defer p.stop()
	const from, to = "app@mail.example.com", "bob@example.net"
	mail, err := load.Typical(m.cell.mail, from, to)
	if err != nil {
		return figures{}, err
	}
	o := load.Options{
		Address: p.address, Clients: m.cell.clients, Time: warmUp, PerConnection: m.cell.perConnection,
		Security: load.Plain, From: from, To: to, Recipients: m.cell.recipients, Mail: mail,
	}
	if m.cell.secure {
		o.Security, o.Certificates = load.StartTLS, &tls.Config{InsecureSkipVerify: true} // its certificate is made at its start
	}
	if _, err := load.Run(ctx, o); err != nil {
		return figures{}, err
	}
	before, err := load.UsageOf(p.cmd.Process.Pid)
	if err != nil {
		return figures{}, err
	}
	o.Time = b.time
	r, err := load.Run(ctx, o)
	if err != nil {
		return figures{}, err
	}
	used, err := load.UsageOf(p.cmd.Process.Pid)
	if err != nil {
		return figures{}, err
	}
	switch {
	case r.Failed() > 0 || r.Accepted == 0:
		return figures{}, fmt.Errorf("%d mails were accepted, others not: %v\n%s", r.Accepted, r.Failures, p.tail())
	case !m.cell.durable:
		if a := sink.Check(ctx, r, 20*time.Second); a.Exact != int(r.Accepted) || a.Ghosts > 0 {
			return figures{}, fmt.Errorf("of %d mails answered 250: %+v", r.Accepted, a)
		}
	}
	return figures{r.Rate(), ms(r.Wait(.5)), ms(r.Wait(.99)), ms(used.CPU-before.CPU) / float64(r.Accepted), float64(used.Peak) / (1 << 20)}, ctx.Err()
}

// sink starts what the system hands mail on to. For durable it is an address at which
// nothing listens.
func (b *bench) sink(m measurement) (*load.Sink, error) {
	o := load.SinkOptions{Address: "127.0.0.1:0", SMTP: m.system == "postfix"}
	if m.cell.secure {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{b.certificate}}
	}
	s, err := load.NewSink(o)
	if err == nil && m.cell.durable {
		s.Close()
	}
	return s, err
}

// proc is the process of a relay.
type proc struct {
	cmd     *exec.Cmd
	address string
	dir     string
}

// The limits are there for the load, not for the relay: 200 clients from one address.
const relayConfig = `%s[api]
path = "/send"
%s
[sender]
email = "app@mail.example.com"
[limits]
connections = 1000
connections_per_address = 1000
[[listener]]
address = %q
%s
`

// start runs a system on a free port.
func (b *bench) start(m measurement, sink string) (*proc, error) {
	dir, err := os.MkdirTemp("", "smtp2rest-bench-")
	if err != nil {
		return nil, err
	}
	p := &proc{dir: dir, address: freePort()}
	api, ca := "http://"+sink, filepath.Join(dir, "ca.pem")
	apiMore, listenerMore := "", ""
	if m.cell.secure {
		api, apiMore = "https://"+sink, fmt.Sprintf("ca_file = %q", ca)
		listenerMore = "tls = \"starttls\"\nself_signed = true"
		if err := os.WriteFile(ca, b.pem, 0o600); err != nil {
			return nil, err
		}
	}
	env := []string{"NEXUSPROMAIL_API_URL=" + api, "NEXUSPROMAIL_API_KEY=benchkey", "SMTP2REST_DATA_DIR=" + filepath.Join(dir, "data"), "BARE_CA=" + ca}
	switch m.system {
	case "bare":
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		p.cmd = exec.Command(self, "-bare", p.address)
	case "postfix":
		if p.cmd, env, err = postfix(b.postfix, dir, p.address, sink); err != nil {
			return nil, err
		}
	default:
		config := filepath.Join(dir, "config.toml")
		text := fmt.Sprintf(relayConfig, m.cell.config, apiMore, p.address, listenerMore)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		p.cmd = exec.Command(b.binaries[m.system], "serve", "--config", config)
	}
	log, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(os.Environ(), env...), log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, p.await()
}

func freePort() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func (p *proc) await() error {
	for range 500 {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			_, err = bufio.NewReader(conn).ReadString('\n')
			_ = conn.Close()
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	err := fmt.Errorf("%v does not listen: %s", p.cmd.Args, p.tail())
	p.stop()
	return err
}

// tail returns the end of what the relay logged.
func (p *proc) tail() string {
	text, _ := os.ReadFile(filepath.Join(p.dir, "stderr"))
	return string(text[max(0, len(text)-1000):])
}

func (p *proc) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	ended := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	ended.Stop()
	_ = os.RemoveAll(p.dir)
}

// selfSigned makes the certificate of the sink.
func selfSigned() (c tls.Certificate, encoded []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return c, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// postfixTree returns where Postfix is: installed, or unpacked by test/mta/unpack. It
// needs root.
func postfixTree() string {
	cache := os.Getenv("SMTP2REST_TEST_CACHE")
	if cache == "" {
		cache = "/var/cache/smtp2rest-test"
	}
	for _, tree := range []string{"/", filepath.Join(cache, "mta", "postfix")} {
		if _, err := os.Stat(filepath.Join(tree, "usr/lib/postfix/sbin/master")); err == nil && os.Getuid() == 0 {
			return tree
		}
	}
	return ""
}

// postfix prepares a Postfix that relays to the sink. It runs as "mail" and "staff",
// which every Debian has; its settings are the default ones but for where things are.
func postfix(tree, dir, address, sink string) (*exec.Cmd, []string, error) {
	conf := filepath.Join(dir, "conf")
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, nil, err
	}
	const mailUser, mailGroup, staffGroup = 8, 8, 50
	for _, name := range strings.Fields("active bounce corrupt defer deferred flush hold incoming private saved trace maildrop public pid ../data ../conf") {
		path := filepath.Join(dir, "queue", name)
		owner, group := mailUser, mailGroup
		switch name {
		case "pid", "../conf":
			owner, group = 0, 0
		case "maildrop", "public":
			group = staffGroup
		}
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, owner, group)); err != nil {
			return nil, nil, err
		}
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
myhostname = bench.invalid
mydestination =
mynetworks = 127.0.0.0/8
smtpd_client_connection_count_limit = 1000
default_process_limit = 400
smtpd_relay_restrictions = permit_mynetworks, reject
default_transport = smtp:[%[3]s]
disable_dns_lookups = yes
alias_maps =
local_recipient_maps =
`, dir, tree, strings.Replace(sink, ":", "]:", 1))
	var master strings.Builder
	fmt.Fprintf(&master, "%s inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\nqmgr unix n - n 300 1 qmgr\npickup unix n - n 60 1 pickup\n", address)
	for _, service := range strings.Fields("cleanup:cleanup:n rewrite:trivial-rewrite:y bounce:bounce:y defer:bounce:y trace:bounce:y flush:flush:n " +
		"smtp:smtp:y error:error:y retry:error:y anvil:anvil:y scache:scache:y proxymap:proxymap:y tlsmgr:tlsmgr:y") {
		f := strings.Split(service, ":")
		fmt.Fprintf(&master, "%s unix %s - n - 0 %s\n", f[0], f[2], f[1])
	}
	for name, text := range map[string]string{"main.cf": main, "master.cf": master.String()} {
		if err := os.WriteFile(filepath.Join(conf, name), []byte(text), 0o644); err != nil {
			return nil, nil, err
		}
	}
	libraries, _ := filepath.Glob(filepath.Join(tree, "usr/lib/*-linux-gnu*")) // the pattern is good
	for _, dir := range libraries[:len(libraries):len(libraries)] {
		libraries = append(libraries, filepath.Join(tree, "lib", filepath.Base(dir)))
	}
	env := []string{"MAIL_CONFIG=" + conf, "LD_LIBRARY_PATH=" + strings.Join(append(libraries, filepath.Join(tree, "usr/lib/postfix")), ":")}
	return exec.Command(filepath.Join(tree, "usr/lib/postfix/sbin/master"), "-c", conf, "-d"), env, nil
}
