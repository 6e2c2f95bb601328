package harness

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// PlantedKey is an API key that must not be shown anywhere.
const PlantedKey = "sk_live_PlantedKey0123456789"

// Relay is a running relay with a sandbox inside, on free ports.
type Relay struct {
	*Process
	SMTP, Sandbox string // host:port
}

// ServeSandbox runs 'serve --sandbox'. more is added to the configuration, after its only
// listener.
func ServeSandbox(t *testing.T, more string) Relay {
	t.Helper()
	return ServeSandboxAt(t, "127.0.0.1:0", more)
}

// ServeSandboxAt is ServeSandbox on an address.
func ServeSandboxAt(t *testing.T, address, more string) Relay {
	t.Helper()
	p := Launch(t, Environ(t), "serve", "--sandbox", "--config", ConfigFile(t, "[[listener]]\naddress = \""+address+"\"\n"+more))
	return Relay{p, p.Await(p.Out, `SMTP +(\S+:\d+)`), p.Await(p.Out, `sandbox +http://(127\.0\.0\.1:\d+)/api`)}
}

// SandboxProcess runs only the sandbox. env has the settings of a relay that sends to it.
func SandboxProcess(t *testing.T, args ...string) (p *Process, env []string, address string) {
	t.Helper()
	p = Launch(t, Environ(t), append([]string{"sandbox", "--listen", "127.0.0.1:0"}, args...)...)
	line := p.Await(p.Out, `(?m)^ +(NEXUSPROMAIL_API_URL=\S+ NEXUSPROMAIL_API_KEY=\S+) `)
	env = append(strings.Fields(line), "FROM_EMAIL=hello@mail.example.com", "FROM_NAME=Your App", "SMTP2REST_DATA_DIR="+filepath.Join(t.TempDir(), "data"))
	return p, env, p.Await(p.Out, `http://(127\.0\.0\.1:\d+)/`)
}

// ConfigFile writes a configuration and returns its path.
func ConfigFile(t *testing.T, toml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Rewrite replaces a file, as editors do.
func Rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// HashOf returns the hash that the program makes of a password.
func HashOf(t *testing.T, password string) string {
	t.Helper()
	r := Execute(t, Environ(t), password+"\n", "hash-password")
	if r.Code != 0 || r.Err != "" {
		t.Fatalf("%+v", r)
	}
	return strings.TrimSpace(r.Out)
}

// Linked returns the path of the program under another name, such as sendmail.
func Linked(t *testing.T, name string) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(Binary(t), link); err != nil {
		t.Fatal(err)
	}
	return link
}

// Call is a call in the list of a sandbox.
type Call struct {
	To        string          `json:"to"`
	Status    int             `json:"status"`
	MessageID string          `json:"message_id"`
	Raw       json.RawMessage `json:"body"`

	Body struct {
		From, ReplyTo       struct{ Email, Name string }
		Subject, HTML, Text string
	} `json:"-"`
}

// CallsTo asks a sandbox over HTTP for the calls to an address.
func CallsTo(t *testing.T, sandbox, to string) []Call {
	t.Helper()
	calls, err := listCalls(sandbox, "?to="+url.QueryEscape(to))
	if err != nil {
		t.Fatal(err)
	}
	for i := range calls {
		if err := json.Unmarshal(calls[i].Raw, &calls[i].Body); err != nil {
			t.Fatal(err)
		}
	}
	return calls
}

// AllCalls returns the calls to all addresses, without their bodies.
func AllCalls(t *testing.T, sandbox string) []Call {
	t.Helper()
	calls, err := listCalls(sandbox, "")
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

func listCalls(sandbox, query string) (calls []Call, err error) {
	resp, err := http.Get("http://" + sandbox + "/sandbox/calls" + query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	defer http.DefaultClient.CloseIdleConnections()
	if err := json.NewDecoder(resp.Body).Decode(&calls); err != nil {
		return nil, fmt.Errorf("the sandbox's list of calls: %w", err)
	}
	return calls, nil
}

// FreeAddress returns an address for a program that cannot choose its own port. The port
// is below those that the kernel hands out, so that no other program gets it by chance.
func FreeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// FreePort returns the port of a FreeAddress.
func FreePort(t *testing.T) string {
	t.Helper()
	_, port := HostPort(t, FreeAddress(t))
	return port
}

// HostPort splits an address.
func HostPort(t *testing.T, address string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}
