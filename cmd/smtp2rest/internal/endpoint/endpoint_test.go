package endpoint

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/webhook"
)

// What a provider may answer, and what is made of it: a secret, or words that can
// be shown.
func TestRegister(t *testing.T) {
	for name, tt := range map[string]struct {
		status       int
		answer       string
		secret, want string
	}{
		"a secret":           {200, `{"secret":"whsec_1"}`, "whsec_1", ""},
		"created":            {201, `{"secret":"whsec_1","id":"x"}`, "whsec_1", ""},
		"a wrong key":        {401, `{"error":"invalid key"}`, "", "401 invalid key"},
		"words for people":   {422, `{"error":"url","message":"say \"https\""}`, "", `422 say "https"`},
		"no words":           {503, "", "", "503 Service Unavailable"},
		"a terminal's codes": {422, `{"message":"\u001b[2Jx"}`, "", "422 �[2Jx"},
		"long words":         {422, `{"message":"` + strings.Repeat("ü", 300) + `"}`, "", "422 " + strings.Repeat("ü", 199) + "…"},
		"another page":       {200, "<html>", "", "has no secret in it"},
		"no secret":          {200, "{}", "", "has no secret in it"},
		"a secret on lines":  {200, `{"secret":"a\nb"}`, "", "cannot be one"},
		"a redirect":         {302, "", "", "302 Found"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Header.Get("Authorization") != "Bearer k" || string(body) != `{"url":"https://r.example/w","events":["complained"]}` {
					t.Errorf("the provider is asked %v %s", r.Header, body)
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.answer)
			}))
			defer s.Close()
			got, err := Provider{URL: s.URL, Key: "k"}.Register(t.Context(), Registration{"https://r.example/w", []string{"complained"}})
			if got != tt.secret || tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.want) && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%q, %v; want %q, %q", got, err, tt.secret, tt.want)
			}
		})
	}
}

// The secret is kept in one step with a mode of its own, the one before it too.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	file, previous := filepath.Join(dir, "secret"), filepath.Join(dir, "previous")
	for i, tt := range []struct {
		secret, previous, said, file, before string
	}{
		{"one", previous, "", "one\n", ""},
		{"two", previous, "The one before it is in " + previous, "two\n", "one\n"},
		{"three", "", "The one before it is gone", "three\n", "one\n"},
	} {
		if err := Writable(file); err != nil {
			t.Fatal(err)
		}
		said, err := Keep(file, tt.previous, tt.secret)
		got, _ := os.ReadFile(file)
		before, _ := os.ReadFile(previous)
		if err != nil || !strings.Contains(said, tt.said) || tt.said == "" && said != "" || string(got) != tt.file || string(before) != tt.before {
			t.Errorf("%d: %q, %v; %q, %q", i, said, err, got, before)
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
		case r.Header.Get(webhook.SignatureHeader) != webhook.Sign("s", body):
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
		a, err := SendSample(t.Context(), s.URL+tt.path, tt.secret, "")
		if err != nil || a.Code != tt.code || a.Taken != tt.taken || a.Took <= 0 {
			t.Errorf("%s with %q: %+v, %v", tt.path, tt.secret, a, err)
		}
	}
	s.Close()
	if _, err := SendSample(t.Context(), s.URL, "s", ""); err == nil || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("nobody there: %v", err)
	}
}
