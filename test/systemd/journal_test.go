//go:build linux

package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// What systemd sets when standard error is the journal, and what it inherits
// when it is not.
func TestLinesForTheJournal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		same   bool
		format string
		want   string
	}{
		{"the journal", true, "auto", `(?m)^<6>msg=listening address=`},
		{"the journal, JSON", true, "json", `(?m)^<6>\{"time":".*"msg":"listening"`},
		{"redirected", false, "auto", `(?m)^time=\S+ level=INFO msg=listening`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			st := info.Sys().(*syscall.Stat_t)
			stream := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
			if !tt.same {
				stream = "8:1"
			}
			cmd := exec.CommandContext(t.Context(), harness.Binary(t), "serve", "--config",
				harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \""+tt.format+"\"\n"))
			cmd.Env, cmd.Dir, cmd.Stderr = harness.Environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=relay@sandbox.example", "JOURNAL_STREAM="+stream), t.TempDir(), f
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := awaitFile(t, f.Name(), "listening")
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			if !regexp.MustCompile(tt.want).MatchString(said) {
				t.Errorf("%q is not in\n%s", tt.want, said)
			}
		})
	}
}

// awaitFile is what is in a file once it has a word.
func awaitFile(t *testing.T, path, word string) string {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < harness.Patience; <-tick.C {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), word) {
			return string(b)
		}
	}
	t.Fatalf("no %q in %s", word, path)
	return ""
}
