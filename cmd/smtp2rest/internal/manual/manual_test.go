package manual

import (
	"strings"
	"testing"
)

// What a shell reads must come out of man(1) as it went in, and no line of
// ours may be taken as a request.
func TestNothingIsARequest(t *testing.T) {
	c := Command{
		Name: "x", Summary: "Do it.",
		About:    "…\n.so /etc/passwd\n'quoted'\n\n  --flag \\n\n  .dots",
		Flags:    []Flag{{"flag", "value", ".about"}},
		Examples: []string{".x -y"},
	}
	page := Page("v1", c)
	for _, want := range []string{`\[u2026]`, `\&.so /etc/passwd`, `\&'quoted'`, `\-\-flag \en`, `\&.dots`, "\\fB\\-\\-flag value\\fR\n\\&.about", `\&.x \-y`} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
}

func TestVerbsAreInTheirCommandsPage(t *testing.T) {
	verb := Command{Name: "queue show", Summary: "Show one mail.", About: "All of it.", Args: "ID", Flags: []Flag{{"raw", "", "as it came"}}}
	page := Page("v1", Command{Name: "queue", Summary: "See.", About: "Lists.", Verbs: []Command{verb}})
	for _, want := range []string{".TH \"SMTP2REST\\-QUEUE\" 1", ".br\nsmtp2rest queue show [flags] ID", ".SH QUEUE SHOW", "All of it.", "as it came"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
}

func TestFile(t *testing.T) {
	page := File("v1", []Table{{Name: "listener", Repeated: true, About: "One.", Settings: []Setting{
		{Path: "listener.address", About: "Where.", Default: `"127.0.0.1:2525"`, Env: "X"},
	}}})
	if want := ".SH [[listener]]\n.PP\nOne.\n.TP\n\\fBlistener.address\\fR\nWhere. Default: \"127.0.0.1:2525\". Environment: X.\n"; !strings.Contains(page, want) {
		t.Errorf("%q is not in\n%s", want, page)
	}
}
