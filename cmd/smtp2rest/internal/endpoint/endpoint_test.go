package endpoint

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// The secret is kept in one step with a mode of its own, the one before it too.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	file, previous := filepath.Join(dir, "secret"), filepath.Join(dir, "previous")
	for i, tt := range []struct {
		secret, previous string
		replaced         bool
		file, before     string
	}{
		{"one", previous, false, "one\n", ""},
		{"two", previous, true, "two\n", "one\n"},
		{"three", "", true, "three\n", "one\n"},
	} {
		if err := Writable(file); err != nil {
			t.Fatal(err)
		}
		replaced, err := Keep(file, tt.previous, tt.secret)
		got, _ := os.ReadFile(file)
		before, _ := os.ReadFile(previous)
		if err != nil || replaced != tt.replaced || string(got) != tt.file || string(before) != tt.before {
			t.Errorf("%d: %t, %v; %q, %q", i, replaced, err, got, before)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".webhook*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := Writable(filepath.Join(dir, "none", "secret")); err == nil {
		t.Error("a directory that is not there can be written")
	}
}

// A sample is what the relay's endpoint takes.
func TestSendSample(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Header.Get(nexuspromail.SignatureHeader) != nexuspromail.Sign("s", body):
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/page":
			_, _ = io.WriteString(w, "hello")
		}
	}))
	defer s.Close()
	for _, tt := range []struct {
		path, secret string
		code         int
		taken        bool
	}{{"/", "s", 200, true}, {"/", "x", 401, false}, {"/page", "s", 200, false}} {
		a, err := SendSample(t.Context(), nexuspromail.Events{}, s.URL+tt.path, tt.secret, nil)
		if err != nil || a.Code != tt.code || a.Taken != tt.taken || a.Took <= 0 {
			t.Errorf("%s with %q: %+v, %v", tt.path, tt.secret, a, err)
		}
	}
	s.Close()
	if _, err := SendSample(t.Context(), nexuspromail.Events{}, s.URL, "s", nil); err == nil || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("nobody there: %v", err)
	}
}
