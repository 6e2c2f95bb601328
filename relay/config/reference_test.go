package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const referenceFile = "../../docs/configuration.md"

const referenceHeader = `# Every setting

All settings of [config.example.toml](../config.example.toml), to read and to link to. A value
from the environment overrides the file, and the file overrides the default. A relative path
starts at the directory of the file. ` + "`smtp2rest check`" + ` prints each value and where it comes
from. For a wrong value, it says where it is in the file, what was found and what is allowed.
` + "`smtp2rest reload`" + ` makes a running relay take over all changes, except to the few settings
that need a restart; the text at each of them says so.

Secrets are never in the file. Each comes from the first of: its variable, the file that the
variable with ` + "`_FILE`" + ` behind it names, the file that the file's own setting names, the systemd
credential of that name in lower case.

Written from the code: ` + "`go generate ./relay/config`" + `.
`

func referenceText(sections []Section) string {
	var b strings.Builder
	b.WriteString(referenceHeader)
	for _, sec := range sections {
		switch {
		case sec.Name == "":
			b.WriteString("\n## At the top of the file\n\n")
		case sec.Repeated:
			fmt.Fprintf(&b, "\n## [[%s]]\n\n%s\n\n", sec.Name, sec.Doc)
		default:
			fmt.Fprintf(&b, "\n## [%s]\n\n%s\n\n", sec.Name, sec.Doc)
		}
		for _, s := range sec.Settings {
			fmt.Fprintf(&b, "- `%s`: %s%s\n", s.Path, s.Doc, referenceDetails(s))
		}
	}
	return b.String()
}

// referenceDetails is what there is to say besides what the setting is for.
func referenceDetails(s Setting) string {
	var parts []string
	switch {
	case s.Secret:
	case s.Default == "":
		parts = append(parts, "no default")
	case s.Example != "":
		parts = append(parts, "default: "+s.Default)
	default:
		parts = append(parts, "default: `"+s.Default+"`")
	}
	if s.Example != "" {
		parts = append(parts, "example: `"+s.Example+"`")
	}
	if s.Env != "" {
		parts = append(parts, "environment: `"+s.Env+"`")
	}
	if s.Restart != "" {
		parts = append(parts, "a change takes a restart: "+s.Restart)
	}
	if s.Note() != "" {
		parts = append(parts, s.Note())
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

func TestReferenceDocument(t *testing.T) {
	want := referenceText(Reference())
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/configuration.md is not what the code says: go generate ./relay/config")
	}
	for _, s := range everySetting() {
		if !strings.Contains(want, "`"+s.Path+"`: ") {
			t.Errorf("%s is in no section", s.Path)
		}
	}
}
