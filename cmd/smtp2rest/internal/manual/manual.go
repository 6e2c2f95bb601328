package manual

import "strings"

// Command is one command, or one verb of a command, as its help has it.
type Command struct {
	Name     string // "queue", "queue show"
	Args     string
	Summary  string
	About    string
	Examples []string
	Flags    []Flag
	Verbs    []Command
}

// Flag is one flag of a command.
type Flag struct{ Name, Kind, About string }

// Overview is the page of the program itself, smtp2rest(1).
func Overview(version, about string, commands []Command) string {
	p := newPage("smtp2rest", "1", version)
	p.section("NAME")
	p.line("smtp2rest - take mail over SMTP and send it through the NexusProMail REST API")
	p.section("SYNOPSIS")
	p.line("smtp2rest COMMAND [flags]")
	p.section("DESCRIPTION")
	p.prose(about)
	p.section("COMMANDS")
	for _, c := range commands {
		p.item(c.Name, c.Summary+" See "+PageName(c)+"(1).")
	}
	p.section("FILES")
	p.item("/etc/smtp2rest/config.toml", "The settings of the service; see smtp2rest.toml(5).")
	p.item("/etc/smtp2rest/sendmail.conf", "Where sendmail finds the daemon; see smtp2rest-sendmail(1).")
	p.item("/var/lib/smtp2rest", "The queue, and the socket through which the commands reach the daemon.")
	p.section("SCRIPTS")
	p.prose(`With --json a command prints one line with an object, or an array with an element on
each line. What goes wrong is then an object on standard error: error, exit, and
problems where the configuration is wrong. What has no --json says why in its page.`)
	p.section("EXIT STATUS")
	p.item("0", "It went well.")
	p.item("1", "It failed; standard error says why.")
	p.item("2", "The command line is wrong.")
	p.item("78", "The configuration is wrong. A restart does not mend that.")
	p.section("SEE ALSO")
	p.line("smtp2rest.toml(5), sendmail(8), systemd.service(5)")
	return p.String()
}

// PageName is the name of a command's page.
func PageName(c Command) string { return "smtp2rest-" + strings.ReplaceAll(c.Name, " ", "-") }

// Page is the page of one command with its verbs.
func Page(version string, c Command) string {
	p := newPage(PageName(c), "1", version)
	p.section("NAME")
	p.line(PageName(c) + " - " + strings.TrimSuffix(c.Summary, "."))
	p.section("SYNOPSIS")
	p.line(synopsis(c))
	for _, v := range c.Verbs {
		p.WriteString(".br\n")
		p.line(synopsis(v))
	}
	p.section("DESCRIPTION")
	p.prose(c.About)
	p.flags("OPTIONS", c.Flags)
	for _, v := range c.Verbs {
		p.section(strings.ToUpper(v.Name))
		p.prose(v.Summary)
		if v.About != c.About {
			p.prose(v.About)
		}
		for _, f := range v.Flags {
			p.flag(f)
		}
		p.examples(v.Examples)
	}
	if len(c.Examples) > 0 {
		p.section("EXAMPLES")
		p.examples(c.Examples)
	}
	p.section("SEE ALSO")
	p.line("smtp2rest(1), smtp2rest.toml(5)")
	return p.String()
}

func synopsis(c Command) string {
	s := "smtp2rest " + c.Name
	if len(c.Flags) > 0 {
		s += " [flags]"
	}
	return strings.TrimRight(s+" "+c.Args, " ")
}

func (p *page) flags(title string, flags []Flag) {
	if len(flags) == 0 {
		return
	}
	p.section(title)
	for _, f := range flags {
		p.flag(f)
	}
}

func (p *page) flag(f Flag) {
	p.item(strings.TrimRight("--"+f.Name+" "+f.Kind, " "), f.About)
}

func (p *page) examples(list []string) {
	if len(list) > 0 {
		p.verbatim("  " + strings.Join(list, "\n  "))
	}
}
