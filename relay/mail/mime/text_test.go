package mime

import "testing"

func TestIsPlain(t *testing.T) {
	for c := range 256 {
		for at := range 8 {
			b := []byte("aZ ~0!}b")
			b[at] = byte(c)
			if got, want := isPlain(b), c >= ' ' && c < 0x7F; got != want {
				t.Errorf("%q: %v", b, got)
			}
		}
	}
}
