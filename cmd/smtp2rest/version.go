package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version string

func versionCommand(t *terminal) *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version.",
		Long:    "Prints the version, the commit it was built from where that is known, and the Go release.",
		Example: examples("smtp2rest version", "smtp2rest version --json"),
	}
	fs := c.Flags()
	var asJSON bool
	declareJSON(fs, &asJSON)
	c.RunE = func(_ *cobra.Command, _ []string) error {
		if asJSON {
			return printJSON(t.out, struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH})
		}
		_, err := fmt.Fprintf(t.out, "smtp2rest %s %s %s/%s\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	return c
}

// versionText is the release's version, else the module's, else the commit.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "commit " + s.Value[:12]
		}
	}
	return "development"
}
