package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
)

var update = flag.Bool("update", false, "write what is expected anew")

// env is an environment for tests.
type env map[string]string

func (e env) lookup(name string) (string, bool) {
	v, ok := e[name]
	return v, ok
}

// inDir reads files under dir, as if the process were there.
func inDir(dir string) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return os.ReadFile(path)
	}
}

// badCase takes the comments of a broken configuration: its first lines are
// "# want: " and one problem each; "# env: NAME=value" sets a variable. All have
// a sender, and a key but for those about the key.
func badCase(text string) (want string, vars env) {
	vars = env{"FROM_EMAIL": "hello@mail.example.com"}
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		if w, ok := strings.CutPrefix(line, "# want: "); ok {
			lines = append(lines, w)
		}
		if v, ok := strings.CutPrefix(line, "# env: "); ok {
			name, value, _ := strings.Cut(v, "=")
			vars[name] = value
		}
	}
	return strings.Join(lines, "\n"), vars
}

// TestBad holds the words of every refusal.
func TestBad(t *testing.T) {
	const dir = "testdata/bad"
	files, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil || len(files) < 25 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, vars := badCase(string(data))
			if !strings.HasPrefix(name, "key-") {
				vars["NEXUSPROMAIL_API_KEY"] = "npm_test"
			}
			_, err = Load(Source{Path: name, NeedAPI: true, Vendors: vendors.All()[:1], Env: vars.lookup, ReadFile: inDir(dir)})
			if err == nil {
				t.Fatal("loaded")
			}
			got := err.Error()
			if strings.Contains(got, "hunter2") {
				t.Errorf("the message shows a secret: %s", got)
			}
			if got != want && *update {
				writeWant(t, file, string(data), got)
			} else if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// writeWant puts new expectations above a file; its lines move, so that it
// may take two rounds.
func writeWant(t *testing.T, file, text, got string) {
	var b strings.Builder
	for line := range strings.Lines(got) {
		b.WriteString("# want: " + strings.TrimSuffix(line, "\n") + "\n")
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "# want: ") {
			b.WriteString(line)
		}
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
