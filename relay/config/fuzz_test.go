package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad: whatever is in the file and in the variables, Load gives a Config
// or problems, shows no secret, and what Describe writes loads to the same.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range append(files, exampleFile) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data), "hello@mail.example.com", "https://app.nexuspromail.com/api", false)
	}
	f.Add("", "", "", false)
	f.Add("x = \"\"\"", "", "", true)
	f.Add("[[listener]]\n[[listener]]\naddress=':0'\n", "", "", true)
	f.Add("[[warming]]\ndomain='a.example'\nbegin=2026-12-01\ntable=[1,2,0]\nurgent=['@a.example']\n", "", "", false)
	f.Add("[[operator]]\nname = 'alice'\ntoken_hash = 'sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'\n", "a@mail.example.com", "", false)
	f.Add("[[user]]\nname = 'app'\npassword_hash = '$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq'\n", "a@mail.example.com", "", false)
	const secret = "hunter2-hunter2"
	f.Fuzz(func(t *testing.T, text, email, url string, inFile bool) {
		if strings.Contains(text+email+url, "hunter2") {
			return
		}
		if inFile {
			text += "\nkey = " + secret + "\n"
		}
		cfg, err := Load(file(text, env{"FROM_EMAIL": email, "NEXUSPROMAIL_API_URL": url, "NEXUSPROMAIL_API_KEY": secret}))
		if (cfg == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", cfg, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), "hunter2") || err.Error() == "" {
				t.Fatalf("the error is %q", err)
			}
			return
		}
		if shown := fmt.Sprintf("%+v %+v", cfg, cfg.Describe()); strings.Contains(shown, "hunter2") {
			t.Fatalf("shown in %s", shown)
		}
		if len(cfg.Users)+len(cfg.Operators) > 0 {
			return // their hashes are not shown, and it does not load without them
		}
		again, err := Load(file(written(cfg), env{"NEXUSPROMAIL_API_KEY": secret})) // so that key_file is not read
		if err != nil {
			t.Fatalf("what is in force does not load: %v\n%s", err, written(cfg))
		}
		if written(again) != written(cfg) {
			t.Fatalf("got:\n%s\nwant:\n%s", written(again), written(cfg))
		}
	})
}

// written is a configuration as a file.
func written(cfg *Config) string {
	var b strings.Builder
	last := ""
	for _, s := range cfg.Describe() {
		if s.Secret {
			continue
		}
		table, name := splitPath(s.Path)
		if table != last {
			b.WriteString(bracket(table) + "\n")
			last = table
		}
		b.WriteString(name + " = " + s.Value + "\n")
	}
	return b.String()
}
