package sendmail

import "strings"

// The options of sendmail 8, which Postfix, Exim and msmtp take as well.
const (
	withArgument = "ABCFLMNOQRVXbefhopr" // in the same word or the next
	without      = "GITUcimnstvx"
	attached     = "dqD" // an optional argument, in the same word
)

// Parse reads the words behind the program's name. Options may follow recipients, as with
// getopt of the GNU C library; "--" ends them.
//
// It ignores options that are about a mail server and do not change where the mail goes:
// delivery and error modes, DSN, queue names. -X does nothing. In sendmail it names a log
// file, and attackers used it through PHP's mail() to create scripts.
func Parse(words []string) (Command, error) {
	if len(words) == 1 && (words[0] == "-h" || words[0] == "-help") {
		return Command{Mode: Help}, nil // to sendmail -h is a number of hops
	}
	p := parser{command: Command{Mode: Deliver}, words: words}
	for len(p.words) > 0 {
		word := p.words[0]
		p.words = p.words[1:]
		switch {
		case word == "--":
			p.operands = append(p.operands, p.words...)
			p.words = nil
		case word == "--help":
			return Command{Mode: Help}, nil
		case strings.HasPrefix(word, "--"):
			return Command{}, Errorf(Usage, "there is no option %s", clean(word))
		case len(word) > 1 && word[0] == '-':
			if err := p.cluster(word[1:]); err != nil {
				return Command{}, err
			}
		default:
			p.operands = append(p.operands, word)
		}
	}
	return p.finish()
}

type parser struct {
	command  Command
	words    []string // not yet read
	operands []string
	daemon   string // the -b letter that asks for a daemon
}

// cluster reads the options in one word, such as "ti", "fbob@example.net" or "oi".
func (p *parser) cluster(letters string) error {
	for letters != "" {
		letter := letters[0]
		letters = letters[1:]
		switch {
		case strings.IndexByte(without, letter) >= 0:
			p.flag(letter)
		case strings.IndexByte(attached, letter) >= 0:
			if letter == 'q' {
				p.command.Mode = Flush
			}
			return nil
		case strings.IndexByte(withArgument, letter) >= 0:
			if letters != "" {
				return p.option(letter, letters)
			}
			if len(p.words) == 0 {
				return Errorf(Usage, "option -%c needs a value", letter)
			}
			value := p.words[0]
			p.words = p.words[1:]
			return p.option(letter, value)
		default:
			return Errorf(Usage, "there is no option %s", clean("-"+string(rune(letter))))
		}
	}
	return nil
}

func (p *parser) flag(letter byte) {
	switch letter {
	case 't':
		p.command.FromHeader = true
	case 'i':
		p.command.IgnoreDots = true
	case 'v':
		p.command.Verbose = true
	}
}

func (p *parser) option(letter byte, value string) error {
	c := &p.command
	switch letter {
	case 'b':
		return p.mode(value)
	case 'f', 'r':
		from, err := sender(value)
		if err != nil {
			return err
		}
		c.From, c.HasFrom = from, true
	case 'F':
		c.FullName = value
	case 'C':
		c.Settings = value
	case 'o':
		if name := value[:min(1, len(value))]; name == "i" {
			c.IgnoreDots = isTrue(value[1:])
		} else if name == "A" {
			c.AliasesFile = value[1:]
		}
	case 'O':
		name, setting, _ := strings.Cut(value, "=")
		switch name = strings.TrimSpace(name); {
		case strings.EqualFold(name, "IgnoreDots"):
			c.IgnoreDots = isTrue(strings.TrimSpace(setting))
		case strings.EqualFold(name, "AliasFile"):
			c.AliasesFile = strings.TrimSpace(setting)
		}
	}
	return nil
}

// isTrue reads a boolean as sendmail does: "" is true.
func isTrue(s string) bool { return s == "" || !strings.ContainsAny(s[:1], "fFnN0") }

func (p *parser) mode(value string) error {
	switch value {
	case "m", "a":
		p.command.Mode = Deliver
	case "s", "p", "i":
		p.command.Mode = Mode(value[0])
	case "d", "D":
		p.daemon = value
	default:
		return Errorf(Usage, "there is no mode %s; there are -bm, -ba, -bs, -bp and -bi", clean("-b"+value))
	}
	return nil
}

// sender reads the argument of -f. "<>" and "" are the null sender.
func sender(value string) (string, error) {
	if v := strings.TrimSpace(value); v == "" || v == "<>" {
		return "", nil
	}
	list, err := Addresses(value)
	if err != nil || len(list) != 1 {
		return "", Errorf(Usage, "option -f: %s is not an address", clean(value))
	}
	return list[0], nil
}

// finish checks what depends on the whole command line.
func (p *parser) finish() (Command, error) {
	c := p.command
	if p.daemon != "" {
		return Command{}, Errorf(Usage, "-b%s would start a daemon; run 'smtp2rest serve' instead", p.daemon)
	}
	if c.Mode == Flush && (len(p.operands) > 0 || c.FromHeader) {
		c.Mode = Deliver // with a mail, -q only says how to deliver it
	}
	if c.Mode != Deliver {
		return c, nil
	}
	for _, word := range p.operands {
		list, err := Addresses(word)
		if err != nil {
			return Command{}, Errorf(Usage, "recipient %s: %s", clean(word), err)
		}
		c.Recipients = append(c.Recipients, list...)
	}
	if len(c.Recipients) == 0 && !c.FromHeader {
		return Command{}, Errorf(Usage, "no recipients; name them, or use -t to take them from the header")
	}
	return c, nil
}
