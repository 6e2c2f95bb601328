package slots

import (
	"testing"

	"pgregory.net/rapid"
)

// However slots are taken, returned and resized, no more are given out than there are
// at that moment.
func TestPool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 5).Draw(t, "size")
		p, taken := New(size), 0
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				select {
				case <-p.Free():
					if taken >= size {
						t.Fatalf("one more than %d was given away", size)
					}
					taken++
				default:
					if taken < size {
						t.Fatalf("%d of %d are taken, and there is none", taken, size)
					}
				}
			},
			"return": func(*rapid.T) {
				if taken > 0 {
					p.Return()
					taken--
				}
			},
			"resize": func(t *rapid.T) {
				size = rapid.IntRange(1, 5).Draw(t, "to")
				p.Resize(size)
			},
			"": func(t *rapid.T) {
				if p.Taken() != taken || p.Size() != size {
					t.Fatalf("%d of %d are taken, it says %d of %d", taken, size, p.Taken(), p.Size())
				}
			},
		})
	})
	if n := New(0).Size(); n != 1 {
		t.Errorf("of none there are %d", n)
	}
}
