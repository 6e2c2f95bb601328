package app

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/providertest"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
)

// Another vendor is chosen by its name alone: the daemon then has its variables, writes
// mail in its format, understands its answers and takes its events.
func TestAnotherVendorIsChosenByName(t *testing.T) {
	var got http.Header
	var body string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		got, body = r.Header, r.URL.Path+" "+string(raw)
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"ticket":"t17"}`)
	}))
	defer api.Close()
	env := map[string]string{"ACME_API_KEY": "planted-key", "ACME_API_URL": api.URL, "FROM_EMAIL": "relay@sandbox.example", "WEBHOOK_SECRET": "seal", "NEXUSPROMAIL_API_KEY": "other"}
	file := filepath.Join(t.TempDir(), "config.toml")
	text := toml(t, "[api]\nprovider = \"acme\"\n[mail]\nstream = \"invoices\"\n[webhook]\naddress = \"127.0.0.1:0\"")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Source{
		Path: file, NeedAPI: true, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Vendors: append(vendors.All(), providertest.Acme()),
	})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := start(t, c)

	smtp := dial(t, a.Addrs()[0].String())
	smtp.data("bob@example.net")
	smtp.send(firstHalf + secondHalf)
	if reply := smtp.want("250 2.0.0 accepted "); !strings.HasSuffix(reply, " t17") {
		t.Errorf("the reply is %q", reply)
	}
	if got.Get("X-Acme-Token") != "planted-key" || got.Get("Authorization") != "" || !strings.HasPrefix(body, "/mails ") || !strings.Contains(body, `"stream":"invoices"`) {
		t.Errorf("the API got %s with %v", body, got)
	}

	event := "kind=gone&id=1&to=bob%40example.net&ticket=t17"
	mac := hmac.New(sha256.New, []byte("seal"))
	_, _ = io.WriteString(mac, event)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+a.WebhookAddr().String()+"/webhook", strings.NewReader(event))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Acme-Seal", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the event was answered %s", resp.Status)
	}
	smtp.send("MAIL FROM:<shop@sandbox.example>\r\n")
	smtp.want("250 ")
	smtp.send("RCPT TO:<bob@example.net>\r\n")
	smtp.want("550 5.1.1 <bob@example.net> suppressed: hard bounce")
}
