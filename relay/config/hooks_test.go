package config

import (
	"strings"
	"testing"
)

// The path and the query of an address to which something is posted may be a secret: they
// are not on the page, not in 'check', and not in the log of a reload.
func TestSecretsInAddressesAreNotShown(t *testing.T) {
	vars := env{"SMTP2REST_NOTIFY_SECRET": strings.Repeat("n", 32), "SMTP2REST_FORWARD_SECRET_CRM": strings.Repeat("f", 32)}
	text := func(path, query string) string {
		return "[notify]\nurl = \"https://ops.example.com:8443/" + path + "\"\n[[forward]]\nname = \"crm\"\nurl = \"https://crm.example.com/?token=" + query + "\"\n"
	}
	was := load(t, file(text("hidden-path", "hidden-query"), vars))
	for _, s := range was.Describe() {
		if strings.Contains(s.Value, "hidden") {
			t.Errorf("%s is shown as %s", s.Path, s.Value)
		}
	}
	for path, want := range map[string]string{"notify.url": `"https://ops.example.com:8443/…"`, "forward.url": `"https://crm.example.com/…"`} {
		if got := described(t, was, path).Value; got != want {
			t.Errorf("%s is shown as %s, want %s", path, got, want)
		}
	}
	changes, err := was.WithoutRestart(load(t, file(text("another-path", "another-query"), vars)))
	if err != nil || len(changes) != 2 {
		t.Errorf("%v: %v", err, changes)
	}
	for _, c := range changes {
		if strings.Contains(c.Old+c.New, "hidden") || strings.Contains(c.Old+c.New, "another") {
			t.Errorf("%+v", c)
		}
	}
	if was.Notify.URL != "https://ops.example.com:8443/hidden-path" {
		t.Errorf("%s is called", was.Notify.URL)
	}
}
