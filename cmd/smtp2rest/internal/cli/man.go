package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

func manCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "man [COMMAND]",
		Short: "Print a manual page, or write all of them.",
		Long: `Prints a page for man(1): about a command, about the configuration file ("config") or,
without a name, about the program. The pages say what the help says. --dir writes all
pages below a directory, in man1 and man5, where packages install them.`,
		Example: terminal.Examples("smtp2rest man queue drop | man -l -", "smtp2rest man config | man -l -", "smtp2rest man --dir /usr/local/share/man"),
	}
	c.Long += terminal.NoJSON("the output is for man(1)")
	dir := c.Flags().String("dir", "", "write every page below this `directory`")
	c.RunE = func(_ *cobra.Command, args []string) error {
		switch {
		case *dir != "" && len(args) > 0:
			return terminal.Usagef("give a command or --dir, not both")
		case *dir != "":
			return writePages(t, *dir)
		}
		page, err := manualPage(t, args)
		if err != nil {
			return err
		}
		_, err = t.Out.Write(page)
		return err
	}
	return c
}

func manualPage(t *terminal.Terminal, args []string) ([]byte, error) {
	if len(args) == 1 && args[0] == "config" {
		return configPage(t.Version), nil
	}
	found, rest, err := commandsForManual(t).Find(args)
	if err != nil || len(rest) > 0 {
		return nil, terminal.UnknownCommand(found, rest[0])
	}
	var page bytes.Buffer
	err = doc.GenMan(found, manHeader(t, "1"), &page)
	return page.Bytes(), err
}

// manHeader uses a fixed date, so that builds are reproducible.
func manHeader(t *terminal.Terminal, section string) *doc.GenManHeader {
	return &doc.GenManHeader{Section: section, Source: "smtp2rest " + t.Version, Manual: "smtp2rest", Date: new(time.Unix(0, 0))}
}

// commandsForManual returns all commands, with their texts marked so that md2man keeps
// tables as the help has them.
func commandsForManual(t *terminal.Terminal) *cobra.Command {
	c := Root(t)
	c.DisableAutoGenTag = true
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.Long = markTables(c.Long)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(c)
	return c
}

// markTables makes lines that begin with a space a code block of Markdown.
func markTables(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		indented := strings.HasPrefix(line, " ")
		if indented != inside && strings.TrimSpace(line) != "" {
			b.WriteString("\n")
			inside = indented
		}
		if indented {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
	return b.String()
}

// writePages writes all pages below a directory.
func writePages(t *terminal.Terminal, dir string) error {
	for _, section := range []string{"man1", "man5"} {
		if err := os.MkdirAll(filepath.Join(dir, section), 0o755); err != nil {
			return err
		}
	}
	options := doc.GenManTreeOptions{Header: manHeader(t, "1"), Path: filepath.Join(dir, "man1"), CommandSeparator: "-"}
	if err := doc.GenManTreeFromOpts(commandsForManual(t), options); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "man5", "smtp2rest.toml.5"), configPage(t.Version), 0o644)
}

// configPage returns smtp2rest.toml(5).
func configPage(version string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%% SMTP2REST.TOML 5 \"\" \"smtp2rest %s\" smtp2rest\n\n# NAME\n\nsmtp2rest.toml - the settings of smtp2rest\n\n# DESCRIPTION\n\n", version)
	b.WriteString("A TOML file, usually /etc/smtp2rest/config.toml. Where a setting names a variable of the environment, the variable overrides the file.\n\n")
	for _, section := range config.Reference() {
		name := strings.ToUpper(section.Name)
		switch {
		case name == "":
			name = "BEFORE THE FIRST TABLE"
		case section.Repeated:
			name += " (none or several tables)"
		}
		fmt.Fprintf(&b, "# %s\n\n%s\n\n", name, escapeMarkdown(section.Doc))
		for _, s := range section.Settings {
			fmt.Fprintf(&b, "**%s**\n: %s", escapeMarkdown(s.Path), escapeMarkdown(s.Doc))
			if s.Default != "" {
				fmt.Fprintf(&b, " Default: %s.", escapeMarkdown(s.Default))
			}
			if s.Env != "" {
				fmt.Fprintf(&b, " Environment: %s.", escapeMarkdown(s.Env))
			}
			if s.Note() != "" {
				fmt.Fprintf(&b, " Provider: %s.", escapeMarkdown(s.Note()))
			}
			b.WriteString("\n\n")
		}
	}
	b.WriteString("# SEE ALSO\n\nsmtp2rest(1)\n")
	return md2man.Render([]byte(b.String()))
}

// escapeMarkdown escapes s, so that Markdown shows it as it is.
func escapeMarkdown(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, "`", "\\`", `[`, `\[`, `]`, `\]`, `<`, `\<`, `>`, `\>`, "\n", " ").Replace(s)
}
