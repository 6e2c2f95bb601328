package app

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// get asks for a page of an endpoint.
func get(t *testing.T, c *http.Client, at net.Addr, page, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at.String()+page, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// The admin address comes, gets another token, moves, and goes, by reloads alone.
func TestReloadOfTheAdminAddress(t *testing.T) {
	box := newSandbox(t)
	r := startReloaded(t, box, "|"+oneListener)
	kept := &http.Client{Timeout: patience, Transport: &http.Transport{}} // with one connection
	defer kept.CloseIdleConnections()
	with := func(more string) {
		t.Helper()
		r.change("|" + oneListener + "[admin]\n" + more)
	}
	token := func(text string) string {
		r.write("token", text)
		return fmt.Sprintf("token_file = %q\n", r.dir+"/token")
	}
	const one, two = "0123456789abcdef", "fedcba9876543210"

	with("address = \"127.0.0.1:0\"\n" + token(one))
	at := r.running.admin.addr()
	for _, tt := range []struct {
		token string
		want  int
	}{{one, 200}, {two, 401}} {
		if got := get(t, kept, at, "/status", tt.token); got != tt.want {
			t.Errorf("with %q: %d", tt.token, got)
		}
	}
	with("address = \"127.0.0.1:0\"\nopen = \"metrics\"\n" + token(two))
	if now := r.running.admin.addr(); now != at {
		t.Fatalf("it moved from %s to %s", at, now)
	}
	for _, tt := range []struct {
		page, token string
		want        int
	}{{"/status", one, 401}, {"/status", two, 200}, {"/metrics", "", 200}} {
		if got := get(t, kept, at, tt.page, tt.token); got != tt.want {
			t.Errorf("%s with %q: %d", tt.page, tt.token, got)
		}
	}

	// A port that cannot be had: told, and all stays.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, _ := net.SplitHostPort(at.String())
	for address, want := range map[string]string{taken.Addr().String(): "this daemon itself uses this port; name a free one in admin.address", "0.0.0.0:" + port: "while this daemon has " + at.String()} {
		r.write("config.toml", r.text("|"+oneListener+"[rules]\nallow_recipients = [\"@nowhere.test\"]\n[admin]\naddress = \""+address+"\"\n"+token(one)))
		if _, err := r.Reload(t.Context()); !errors.Is(err, admin.ErrNotTaken) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if got := get(t, kept, at, "/status", two); got != 200 {
		t.Errorf("after reloads that were refused: %d", got)
	}

	// It is asked to go by a call that it answers itself.
	r.write("config.toml", r.text("|"+oneListener))
	client, err := admin.DialTCP(t.Context(), at.String(), two)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := client.Reload(t.Context()); err != nil || time.Since(began) > leaveTime/2 {
		t.Errorf("reload through the address that goes: %v after %s", err, time.Since(began))
	}
	for deadline := time.Now().Add(patience); ; { // it leaves while nobody waits for it
		conn, err := net.DialTimeout("tcp", at.String(), patience)
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the address is still there")
		}
	}
}

// So does the endpoint for events, and turns to TLS without closing its port.
func TestReloadOfTheWebhook(t *testing.T) {
	box := newSandbox(t)
	r := startReloaded(t, box, "|"+oneListener)
	r.write("secret", "whsec_1")
	cert, key := certificate(t, "one.example.com")
	r.write("cert.pem", cert)
	r.write("key.pem", key)
	with := func(more string) net.Addr {
		t.Helper()
		r.change(fmt.Sprintf("|%s[webhook]\nsecret_file = %q\n%s", oneListener, r.dir+"/secret", more))
		return r.WebhookAddr()
	}
	post := func(url string) int {
		t.Helper()
		c := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		body := []byte(`{"id":"evt_` + url[len(url)-3:] + `","type":"test"}`)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(nexuspromail.SignatureHeader, nexuspromail.Sign("whsec_1", body))
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	at := with("address = \"127.0.0.1:0\"\n")
	if got := post("http://" + at.String() + "/webhook"); got != 200 {
		t.Errorf("a new endpoint: %d", got)
	}
	if now := with("address = \"127.0.0.1:0\"\npath = \"/events\"\n"); now.String() != at.String() {
		t.Errorf("it moved to %s", now)
	}
	if got, old := post("http://"+at.String()+"/events"), post("http://"+at.String()+"/webhook"); got != 200 || old != 404 {
		t.Errorf("another path: %d, the one before %d", got, old)
	}
	with(fmt.Sprintf("address = \"127.0.0.1:0\"\ncert_file = %q\nkey_file = %q\n", r.dir+"/cert.pem", r.dir+"/key.pem"))
	if got := post("https://" + at.String() + "/webhook"); got != 200 {
		t.Errorf("with TLS: %d", got)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "key.pem"), []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reload(t.Context()); !errors.Is(err, admin.ErrNotTaken) {
		t.Errorf("with a wrong key: %v", err)
	}
	if got := post("https://" + at.String() + "/webhook"); got != 200 {
		t.Errorf("after a reload that was refused: %d", got)
	}
	if now := with(""); now != nil {
		t.Errorf("it is still there: %s", now)
	}
}

// What the last part refuses undoes what those before it made ready: here a listener.
func TestARefusedReloadLeavesNoPortOpen(t *testing.T) {
	r := startReloaded(t, newSandbox(t), "|"+oneListener)
	before := r.Addrs()
	var ports [2]net.Listener
	for i := range ports {
		var err error
		if ports[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ports[i].Close() }()
	}
	free, taken := ports[0].Addr().String(), ports[1].Addr().String()
	_ = ports[0].Close()
	r.write("secret", "whsec_1")
	r.write("config.toml", r.text(fmt.Sprintf("|%s[[listener]]\naddress = %q\n[webhook]\nsecret_file = %q\naddress = %q\n", oneListener, free, r.dir+"/secret", taken)))
	if _, err := r.Reload(t.Context()); !errors.Is(err, admin.ErrNotTaken) || !strings.Contains(err.Error(), "webhook.address") {
		t.Errorf("a webhook on a port that is taken: %v", err)
	}
	if now := r.Addrs(); len(now) != 1 || now[0] != before[0] {
		t.Errorf("it listens on %v", now)
	}
	dial(t, before[0].String()).want("220 ")
	again, err := net.Listen("tcp", free)
	if err != nil {
		t.Fatalf("the listener of the reload that was refused is still there: %v", err)
	}
	_ = again.Close()
}
