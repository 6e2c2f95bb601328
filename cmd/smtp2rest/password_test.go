package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestHashPassword(t *testing.T) {
	form := regexp.MustCompile(`^\$2a\$10\$[./A-Za-z0-9]{53}$`)
	if a, b := harness.HashOf(t, "hunter2"), harness.HashOf(t, "hunter2"); !form.MatchString(a) || !form.MatchString(b) || a == b {
		t.Errorf("%s and %s", a, b)
	}
	if r := harness.Execute(t, harness.Environ(t), "no line end", "hash-password", "--user", "app"); r.Code != 0 || !strings.HasPrefix(r.Out, "app:$2a$") {
		t.Errorf("%+v", r)
	}
	for name, tt := range map[string]struct {
		stdin string
		args  []string
		code  int
	}{
		"nothing":    {"", nil, terminal.ExitFailed},
		"empty":      {"\n", nil, terminal.ExitFailed},
		"long":       {strings.Repeat("x", 73), nil, terminal.ExitFailed},
		"argument":   {"x\n", []string{"hunter2"}, terminal.ExitUsage},
		"user name":  {"x\n", []string{"--user", "a:b"}, terminal.ExitUsage},
		"user space": {"x\n", []string{"--user", " a"}, terminal.ExitUsage},
	} {
		r := harness.Execute(t, harness.Environ(t), tt.stdin, append([]string{"hash-password"}, tt.args...)...)
		if r.Code != tt.code || r.Out != "" || strings.Contains(r.Err, "hunter2") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// What is wrong with users is told before anything starts, without a secret.
func TestUsersFile(t *testing.T) {
	dir := t.TempDir()
	users := filepath.Join(dir, "users")
	check := func(text string) harness.Result {
		if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return harness.Execute(t, harness.Environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=a@b.test"), "", "check", "--config",
			harness.ConfigFile(t, fmt.Sprintf("users_file = %q\n[[listener]]\nrequire_auth = true\n", users)))
	}
	hash := harness.HashOf(t, "hunter2")
	if r := check("app:" + hash + "\n"); r.Code != 0 || strings.Contains(r.All(), hash) {
		t.Errorf("%+v", r)
	}
	if r := check("app:hunter2\n"); r.Code != terminal.ExitConfig || strings.Contains(r.All(), "hunter2") || !strings.Contains(r.Err, "line 1: ") {
		t.Errorf("%+v", r)
	}
	if r := check(""); r.Code != terminal.ExitConfig || !strings.Contains(r.Err, "nobody who could log in") {
		t.Errorf("%+v", r)
	}
}
