//go:build !unix

package logs

import "os"

// deviceAndInode is not known where there is no journal.
func deviceAndInode(*os.File) string { return "" }
