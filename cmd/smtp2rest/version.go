package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version string

func versionCommand() *command {
	return &command{
		name:     "version",
		summary:  "Print the version.",
		about:    "Prints the version, the commit it was built from where that is known, and the Go release.",
		examples: []string{"smtp2rest version", "smtp2rest version --json"},
		setup: func(fs *flag.FlagSet) action {
			var asJSON bool
			declareJSON(fs, &asJSON)
			return func(_ context.Context, t *terminal, _ []string) error {
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
		},
	}
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
