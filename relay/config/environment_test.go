package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A file that cannot be read says nothing of what is set: only that is a problem.
func TestAWrongFileIsOneProblem(t *testing.T) {
	for _, text := range []string{"[sender]\nemail = hello", "[limits]\nconnections = 99999999999999999999\n"} {
		src := file(text, env{})
		src.NeedAPI = true
		_, err := Load(src)
		if problems, ok := err.(Errors); !ok || len(problems) != 1 {
			t.Errorf("%q: got %v, want one problem", text, err)
		}
	}
}

// A variable with the program's prefix that nothing reads is probably mistyped.
func TestUnknownVariables(t *testing.T) {
	for name, want := range map[string]string{
		"SMTP2REST_DATADIR":                    "environment SMTP2REST_DATADIR: nothing reads this variable; did you mean SMTP2REST_DATA_DIR?",
		"SMTP2REST_ADMIN_TOKEN_FIEL":           "environment SMTP2REST_ADMIN_TOKEN_FIEL: nothing reads this variable; did you mean SMTP2REST_ADMIN_TOKEN_FILE?",
		"SMTP2REST_PALETTE":                    "environment SMTP2REST_PALETTE: nothing reads this variable",
		"SMTP2REST_DATA_DIR":                   "",
		"SMTP2REST_FORWARD_SECRET_MY_CRM":      "",
		"SMTP2REST_FORWARD_SECRET_MY_CRM_FILE": "",
		"SMTP2REST_FORWARD_SECRET_CRM":         "environment SMTP2REST_FORWARD_SECRET_CRM: nothing reads this variable; did you mean SMTP2REST_FORWARD_SECRET_MY_CRM?",
		"SMTP2REST_ADMIN_TOKEN_FILE":           "",
		"SMTP2REST_SMTP":                       "", // send and sendmail read it
		"SMTP2REST_SERVICE_HOST":               "", // Kubernetes sets these for a service of this name
		"SMTP2REST_PORT_2525_TCP":              "",
		"SMTP3REST_DATADIR":                    "",
	} {
		src := file("[[forward]]\nname = \"my-crm\"\nurl = \"https://crm.example.com/e\"\n", env{"SMTP2REST_FORWARD_SECRET_MY_CRM": "s"})
		src.Environ = func() []string { return []string{"PATH=/bin", name + "=x"} }
		cfg := load(t, src)
		got := strings.Join(slices.DeleteFunc(cfg.Warnings, func(w string) bool { return !strings.HasPrefix(w, "environment ") }), "\n")
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// A data directory is a directory, on a disk.
func TestDataDirectory(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		plain:                       "is no directory; write one",
		filepath.Join(plain, "sub"): "is no directory; write one",
		"/dev":                      `found "/dev", where the system has no files of yours; write a directory on a disk, as in "/var/lib/smtp2rest"`,
		"/proc/x":                   "where the system has no files of yours",
		"/":                         "where the system has no files of yours",
		dir:                         "",
		filepath.Join(dir, "new"):   "",
		"/dev/shm/smtp2rest":        "",
	} {
		_, err := Load(file("", env{"SMTP2REST_DATA_DIR": path}))
		if (err == nil) != (want == "") || err != nil && !(strings.Contains(err.Error(), want) && strings.HasPrefix(err.Error(), "environment SMTP2REST_DATA_DIR: ")) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}
