//go:build !unix

package serve

// disableCoreDumps does nothing: this system writes none by default.
func disableCoreDumps() error { return nil }
