package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

// rewriter writes a file anew, each time with another age: a file system's
// clock may be coarse.
func rewriter(t *testing.T, file string) func(text string) {
	age := time.Now().Add(-time.Hour)
	return func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		age = age.Add(time.Second)
		if err := os.Chtimes(file, age, age); err != nil {
			t.Fatal(err)
		}
	}
}

// The file is read again when it changed, and only when it is right.
func TestAliasesAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "aliases")
	write := rewriter(t, file)
	var log strings.Builder
	c := config.Addresses{QualifyDomain: "x", AliasFile: file}
	if _, err := newAliases(c, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("without a file it starts: %v", err)
	}
	write("root: a@b\n")
	a, err := newAliases(c, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		if got, _ := a.Expand("root@x"); strings.Join(got, " ") != want {
			t.Errorf("root is %q, want %q", got, want)
		}
	}
	is("a@b")
	write("root: c@d\n")
	is("c@d")
	write("root: |x\n")
	is("c@d")
	is("c@d")
	if n := strings.Count(log.String(), "cannot be read again"); n != 1 {
		t.Errorf("a wrong file is told of %d times:\n%s", n, &log)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	is("c@d")
	is("c@d")
	if n := strings.Count(log.String(), "cannot be read again"); n != 2 {
		t.Errorf("a file that is gone is told of %d times:\n%s", n, &log)
	}
	write("root: e@f, g@h\n")
	is("e@f g@h")
}
