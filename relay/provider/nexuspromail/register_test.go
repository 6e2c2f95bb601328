package nexuspromail

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// Answers to a registration, and what they must become: a secret, or an error that can
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
		"a terminal's codes": {422, `{"message":"\u001b[2Jx"}`, "", "422 [2Jx"},
		"long words":         {422, `{"message":"` + strings.Repeat("ü", 300) + `"}`, "", "422 " + strings.Repeat("ü", 100) + "..."},
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
			got, err := Registrar{provider.Connection{URL: s.URL, Path: "/", Key: "k"}}.Register(t.Context(), provider.Registration{URL: "https://r.example/w", Events: []string{"complained"}})
			if got != tt.secret || tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.want) && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%q, %v; want %q, %q", got, err, tt.secret, tt.want)
			}
		})
	}
}
