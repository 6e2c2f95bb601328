package serve

import (
	"strings"
	"testing"
)

func TestShorten(t *testing.T) {
	if got := shorten(strings.Repeat("ü", 100) + "\n" + strings.Repeat("ü", 101)); got != strings.Repeat("ü", 100)+"\n"+strings.Repeat("ü", 99)+"…" {
		t.Errorf("shorten gives %q", got)
	}
}
