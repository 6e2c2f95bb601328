package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// certificate makes one and its key, in PEM.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", raw)
}

// reloaded is a daemon whose configuration is a file that a test changes.
type reloaded struct {
	*App
	t    *testing.T
	log  *journal
	dir  string
	file string
}

// startReloaded runs a daemon with a key file, a certificate and aliases; more
// is its file besides those.
func startReloaded(t *testing.T, box *sandbox.Server, more string) *reloaded {
	t.Helper()
	r := &reloaded{t: t, log: &journal{}, dir: t.TempDir()}
	r.file = filepath.Join(r.dir, "config.toml")
	r.write("key", "planted-key")
	r.write("config.toml", r.text(more))
	from := func() (*config.Config, error) {
		env := map[string]string{"NEXUSPROMAIL_API_URL": box.URL(), "FROM_EMAIL": "relay@sandbox.example"}
		return config.Load(config.Source{Path: r.file, NeedAPI: true, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	}
	c, err := from()
	if err != nil {
		t.Fatal(err)
	}
	log := NewLog(r.log, c.Log, func(string) (string, bool) { return "", false })
	t.Cleanup(log.Close)
	r.App = New(Options{
		Config: c, Version: "v0.0.0-test", Log: log.Logger, Load: from,
		SetLog: log.Change,
	})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop(r.App, patience) })
	return r
}

func (r *reloaded) text(more string) string {
	top, tables, _ := strings.Cut(more, "|")
	return fmt.Sprintf("%s\n[api]\nkey_file = %q\n[queue]\ndata_dir = %q\n%s\n", top, r.dir+"/key", r.dir+"/data", tables)
}

func (r *reloaded) write(name, text string) {
	r.t.Helper()
	// As editors do it: whoever reads finds the old file or the new one.
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

// change writes the configuration anew and reloads it.
func (r *reloaded) change(more string) []admin.Change {
	r.t.Helper()
	r.write("config.toml", r.text(more))
	got, err := r.Reload(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return got.Changes
}

const oneListener = "[[listener]]\naddress = \"127.0.0.1:0\"\n"

// mail sends one on an open connection and returns the reply.
func (c *client) mail(to string) string {
	c.t.Helper()
	for _, step := range [][2]string{{"MAIL FROM:<shop@sandbox.example>", "250 "}, {"RCPT TO:<" + to + ">", "250 "}, {"DATA", "354 "}} {
		c.send(step[0] + "\r\n")
		c.want(step[1])
	}
	c.send(firstHalf + secondHalf)
	return c.reply()
}

// A daemon that started with much of it wrong is put right while its client
// stays connected: key, rules, aliases, limits, log.
func TestReload(t *testing.T) {
	box := newSandbox(t)
	r := startReloaded(t, box, "|"+oneListener)
	r.write("key", "wrong-key")
	if _, err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := dial(t, r.Addrs()[0].String())
	c.want("220 ")
	c.send("EHLO client.test\r\n")
	c.want("250 ")
	if got := c.mail("bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued") {
		t.Errorf("with the wrong key: %s", got)
	}
	r.write("key", "planted-key")
	changes := r.change("aliases = { root = [\"ops@example.net\"] }\n|" + oneListener + "[rules]\ndeny_recipients = [\"@denied.test\"]\n[log]\nformat = \"json\"\nlevel = \"debug\"\n[limits]\nrecipients = 3\n")
	var names []string
	for _, c := range changes {
		names = append(names, c.Setting)
	}
	const want = "aliases api.key rules.deny_recipients limits.recipients log.level log.format"
	if got := strings.Join(names, " "); !strings.HasPrefix(got, want) {
		t.Errorf("changed: %s\nwant    %s", got, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := box.WaitFor(ctx, func(s sandbox.Stats) bool { return s.Accepted == 1 }); err != nil {
		t.Errorf("the mail that waited for the right key did not go out: %v", err)
	}
	c.send("MAIL FROM:<shop@sandbox.example>\r\nRCPT TO:<x@denied.test>\r\nRSET\r\n")
	c.want("250 ")
	c.want("550 5.7.1")
	c.want("250 ")
	last := ""
	for range 100 { // until the breaker has learnt what the sandbox answered a moment ago
		if last = c.mail("root"); strings.HasPrefix(last, "250 2.0.0 accepted") {
			break
		}
	}
	if box.AcceptedFor("ops@example.net") == 0 {
		t.Errorf("the new alias is not in force: %s", last)
	}
	log := r.log.String()
	for _, want := range []string{`"msg":"reloaded"`, `"setting":"api.key","from":"set, not shown","to":"set, not shown"`, `"level":"DEBUG"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s", want)
		}
	}
	if strings.Contains(log, "planted-key") || strings.Contains(log, "wrong-key") {
		t.Error("the log shows a key")
	}
}

// A certificate and its key are another pair at once, for clients that come
// after the reload.
func TestReloadRotatesACertificate(t *testing.T) {
	box := newSandbox(t)
	dir := t.TempDir()
	write := func(name string) {
		t.Helper()
		cert, key := certificate(t, name)
		for file, text := range map[string]string{"cert.pem": cert, "key.pem": key} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("one.example.com")
	r := startReloaded(t, box, fmt.Sprintf("|%stls = \"implicit\"\ncert_file = %q\nkey_file = %q\n", oneListener, dir+"/cert.pem", dir+"/key.pem"))
	name := func() (*tls.Conn, string) {
		t.Helper()
		conn, err := tls.Dial("tcp", r.Addrs()[0].String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
		if err != nil {
			t.Fatal(err)
		}
		return conn, conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	open, first := name()
	defer func() { _ = open.Close() }()
	write("two.example.com")
	got, err := r.Reload(t.Context())
	if err != nil || len(got.Changes) != 2 || !strings.HasSuffix(got.Changes[0].Setting, "/cert.pem") {
		t.Errorf("%+v, %v", got, err)
	}
	other, second := name()
	defer func() { _ = other.Close() }()
	if first != "one.example.com" || second != "two.example.com" {
		t.Errorf("clients see %s, then %s", first, second)
	}
	if _, err := fmt.Fprint(open, "NOOP\r\n"); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reload(t.Context()); !errors.Is(err, admin.ErrNotTaken) || !strings.Contains(err.Error(), "are no certificate and its key") {
		t.Errorf("with a key that does not fit: %v", err)
	}
	third, still := name()
	defer func() { _ = third.Close() }()
	if still != "two.example.com" {
		t.Errorf("after it clients see %s", still)
	}
}

// Whatever is wrong, all of it stays as it was, and it is told where it was
// asked for and in the log.
func TestReloadRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	box := newSandbox(t)
	r := startReloaded(t, box, "|"+oneListener)
	before := r.Addrs()
	client, err := admin.Dial(t.Context(), admin.SocketIn(filepath.Join(r.dir, "data")))
	if err != nil {
		t.Fatal(err)
	}
	const strict = "[rules]\nallow_recipients = [\"@nowhere.test\"]\n"
	for name, tt := range map[string]struct{ file, want string }{
		"no TOML":              {"[[[", "this is not TOML"},
		"two mistakes":         {r.text("|" + oneListener + strict + "[limits]\nrecipients = 0\nconections = 7\n"), "did you mean connections?"},
		"a port that is taken": {r.text(fmt.Sprintf("|%s[[listener]]\naddress = %q\n%s", oneListener, taken.Addr(), strict)), "this daemon itself uses this port"},
		"another queue":        {strings.Replace(r.text("|"+oneListener+strict), "/data\"", "/other\"", 1), "queue.data_dir: found \"" + r.dir + "/other\" where"},
		"no aliases":           {r.text("alias_file = \"/nowhere\"\n|" + oneListener + strict), "/nowhere"},
	} {
		r.write("config.toml", tt.file)
		_, err := client.Reload(t.Context())
		if !errors.Is(err, admin.ErrNotTaken) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if log := r.log.String(); !strings.Contains(log, "reload: the configuration was not taken") {
			t.Errorf("%s: the log has\n%s", name, log)
		}
	}
	if got := r.Addrs(); len(got) != 1 || got[0].String() != before[0].String() {
		t.Errorf("the addresses are %v, were %v", got, before)
	}
	c := dial(t, before[0].String())
	c.data("bob@example.net") // not nowhere.test
	c.send(firstHalf + secondHalf)
	c.want("250 2.0.0 accepted")
	if err := stop(r.App, patience); err != nil {
		t.Error(err)
	}
	if _, err := r.Reload(t.Context()); !errors.Is(err, errBetween) {
		t.Errorf("after Stop: %v", err)
	}
}

// Mail flows on many connections while good and bad configurations come one
// after the other: every mail is answered 250 and arrives, no connection ends.
func TestReloadUnderLoad(t *testing.T) {
	const clients, mails = 6, 15
	box := newSandbox(t)
	r := startReloaded(t, box, "|"+oneListener)
	at := r.Addrs()[0].String()
	done := make(chan struct{})
	var sending, changing sync.WaitGroup
	changing.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			wrong := n%3 == 2
			more := fmt.Sprintf("|%s[limits]\nrecipients = %d\n[log]\nlevel = %q\n[delivery]\nretry_first = \"1s\"\n", oneListener, 10+n%5, []string{"info", "debug"}[n%2])
			if n%2 == 1 {
				more += "[[listener]]\naddress = \"127.0.0.1:0\"\n[[warming]]\ndomain = \"sandbox.example\"\nbegin = \"2026-01-01\"\nfirst = 100000\nuntil = 0\n"
			}
			if wrong {
				more += "[mail]\nattachments = \"perhaps\"\n"
			}
			r.write("config.toml", r.text(more))
			if _, err := r.Reload(context.Background()); (err != nil) != wrong {
				t.Errorf("reload %d: %v", n, err)
				return
			}
		}
	})
	for i := range clients {
		sending.Go(func() {
			c := dial(t, at)
			if got := c.reply(); !strings.HasPrefix(got, "220 ") {
				t.Errorf("greeted with %q", got)
				return
			}
			c.send("EHLO client.test\r\n")
			_ = c.reply()
			for j := range mails {
				to := fmt.Sprintf("u%d-%d@example.net", i, j)
				if j%5 == 0 {
					to = "down+1@example.net" // the API fails once: this one is queued
				}
				for _, step := range [][2]string{{"MAIL FROM:<shop@sandbox.example>\r\n", "250 "}, {"RCPT TO:<" + to + ">\r\n", "250 "}, {"DATA\r\n", "354 "}, {firstHalf + secondHalf, "250 2.0.0"}} {
					c.send(step[0])
					if got := c.reply(); !strings.HasPrefix(got, step[1]) {
						t.Errorf("after %q: %q", step[0], got)
						return
					}
				}
			}
		})
	}
	sending.Wait()
	close(done)
	changing.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := box.WaitFor(ctx, func(s sandbox.Stats) bool { return s.Accepted >= clients*mails }); err != nil {
		t.Errorf("%+v of %d arrived: %v", box.Stats(), clients*mails, err)
	}
}

// The bounds that alerts are reckoned from are those in force.
func TestReloadedBoundsAreMeasured(t *testing.T) {
	r := startReloaded(t, newSandbox(t), "|max_mails = 7\n"+oneListener)
	_ = r.change("|max_mails = 9\n" + oneListener)
	if got := value(t, r.App, "smtp2rest_queue_mails_limit"); got != 9 {
		t.Errorf("smtp2rest_queue_mails_limit is %v", got)
	}
}

// value is what a metric without labels is.
func value(t *testing.T, a *App, name string) float64 {
	t.Helper()
	gathered, err := a.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range gathered {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
