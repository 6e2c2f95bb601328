package serve

import (
	"testing"
)

// TestQuoted: what is told to be typed can be.
func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{"/tmp/a": "/tmp/a", "": "''", "/tmp/a b": "'/tmp/a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "a\n": "'a\n'"} {
		if got := quoted(in); got != want {
			t.Errorf("%q is quoted %s, want %s", in, got, want)
		}
	}
}
