package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/manual"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

func manCommand() *command {
	return &command{
		name:    "man",
		args:    "[PAGE]",
		summary: "Print a manual page, or write all of them.",
		about: `Prints a page for man(1): of a command, of the configuration file ("config") or,
without a name, of the program. The pages say what the help says. --dir writes all
of them below a directory as packages install them, in man1 and man5.`,
		examples: []string{"smtp2rest man queue | man -l -", "smtp2rest man config | man -l -", "smtp2rest man --dir /usr/local/share/man"},
		noJSON:   "what is printed is read by man",
		setup: func(fs *flag.FlagSet) action {
			dir := fs.String("dir", "", "write every page below this `directory`")
			return func(_ context.Context, t *terminal, args []string) error {
				switch {
				case len(args) > 1 || *dir != "" && len(args) > 0:
					return usagef("one page at a time, or --dir for all of them")
				case *dir != "":
					return writePages(*dir)
				}
				text, err := manualPage(args)
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(t.out, text)
				return err
			}
		},
	}
}

func manualPage(args []string) (string, error) {
	switch {
	case len(args) == 0:
		return manual.Overview(versionText(), programAbout, documented()), nil
	case args[0] == "config":
		return manual.File(versionText(), settingTables()), nil
	}
	c := find(args[0])
	if c == nil {
		return "", usagef("there is no page %q%s", args[0], noSuch(args[0], append(names(), "config")))
	}
	return manual.Page(versionText(), described(c)), nil
}

const programAbout = `smtp2rest is a daemon for programs that can only send mail by SMTP. It takes their
mail, turns each into calls of the provider's REST API, sends them at the account's
rate, keeps on disk what cannot be sent at once, and tells the client the API's verdict
in the SMTP reply.

'smtp2rest demo' shows it at work without an account. 'smtp2rest serve' is the daemon.`

// writePages writes what packages install.
func writePages(dir string) error {
	pages := map[string]string{
		"man1/smtp2rest.1":      manual.Overview(versionText(), programAbout, documented()),
		"man5/smtp2rest.toml.5": manual.File(versionText(), settingTables()),
	}
	for _, c := range documented() {
		pages["man1/"+manual.PageName(c)+".1"] = manual.Page(versionText(), c)
	}
	for name, text := range pages {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// documented are all commands, as the manual has them.
func documented() []manual.Command {
	var list []manual.Command
	for _, c := range commands() {
		list = append(list, described(c))
	}
	return list
}

func described(c *command) manual.Command {
	d := manual.Command{Name: c.name, Args: c.args, Summary: c.summary, About: strings.TrimSpace(c.about), Examples: c.examples}
	if c.noJSON != "" {
		d.About += "\n\nThere is no --json: " + c.noJSON + "."
	}
	fs := c.flagSet()
	c.setup(fs)
	fs.VisitAll(func(f *flag.Flag) {
		kind, about := flagText(f)
		d.Flags = append(d.Flags, manual.Flag{Name: f.Name, Kind: kind, About: strings.Join(strings.Fields(about), " ")})
	})
	for _, v := range c.verbs {
		d.Verbs = append(d.Verbs, described(v))
	}
	return d
}

func settingTables() []manual.Table {
	var tables []manual.Table
	for _, sec := range config.Reference() {
		t := manual.Table{Name: sec.Name, Repeated: sec.Repeated, About: sec.Doc}
		for _, s := range sec.Settings {
			t.Settings = append(t.Settings, manual.Setting{Path: s.Path, About: s.Doc, Default: s.Default, Example: s.Example, Env: s.Env})
		}
		tables = append(tables, t)
	}
	return tables
}
