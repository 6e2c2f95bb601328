package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
)

func versionCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version.",
		Long:    "Prints the version, the commit it was built from where that is known, and the Go release.",
		Example: terminal.Examples("smtp2rest version", "smtp2rest version --json"),
	}
	fs := c.Flags()
	var asJSON bool
	terminal.DeclareJSON(fs, &asJSON)
	c.RunE = func(_ *cobra.Command, _ []string) error {
		if asJSON {
			return terminal.PrintJSON(t.Out, struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{t.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH})
		}
		_, err := fmt.Fprintf(t.Out, "smtp2rest %s %s %s/%s\n", t.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	return c
}

// versionOf is the release's version, else the module's, else the commit.
func versionOf(release string) string {
	if release != "" {
		return release
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
