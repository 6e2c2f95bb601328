package providertest

import (
	"os"
	"testing"
)

// TestAnotherVendor shows that the suite asks for nothing that is one vendor's alone.
func TestAnotherVendor(t *testing.T) {
	Run(t, Acme(), os.DirFS("testdata/acme"))
}
