package sendmail

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestParse has the words that programs really pass.
func TestParse(t *testing.T) {
	root := []string{"root"}
	for _, c := range []struct {
		who, words string // words are separated by a blank; · is a blank inside one
		want       Command
	}{
		{"Debian's cron", "-FCronDaemon -i -odi -oem -oi -t -f root", Command{From: "root", HasFrom: true, FullName: "CronDaemon", FromHeader: true, IgnoreDots: true}},
		{"Debian's cron 3.0pl1", "-i -FCronDaemon -B8BITMIME -oem root", Command{FullName: "CronDaemon", IgnoreDots: true, Recipients: root}},
		{"cronie", "-FCronDaemon -i -odi -oem -oi -t -f root@web1", Command{From: "root@web1", HasFrom: true, FullName: "CronDaemon", FromHeader: true, IgnoreDots: true}},
		{"PHP's mail()", "-t -i", Command{FromHeader: true, IgnoreDots: true}},
		{"PHP's mail() with a fifth argument", "-t -i -fshop@example.com", Command{From: "shop@example.com", HasFrom: true, FromHeader: true, IgnoreDots: true}},
		{"PHP, a log as an attack", "-t -i -OQueueDirectory=/tmp -X/var/www/x.php", Command{FromHeader: true, IgnoreDots: true}},
		{"git send-email", "-f zoe@example.com -i bob@example.net eve@example.net", Command{From: "zoe@example.com", HasFrom: true, IgnoreDots: true, Recipients: []string{"bob@example.net", "eve@example.net"}}},
		{"mutt", "-oem -oi -f zoe@example.com -- bob@example.net", Command{From: "zoe@example.com", HasFrom: true, IgnoreDots: true, Recipients: []string{"bob@example.net"}}},
		{"mutt with dsn_notify", "-oem -oi -N failure,delay -R hdrs -- bob@example.net", Command{IgnoreDots: true, Recipients: []string{"bob@example.net"}}},
		{"s-nail", "-i -m -v -f zoe@example.com -- bob@example.net", Command{From: "zoe@example.com", HasFrom: true, IgnoreDots: true, Verbose: true, Recipients: []string{"bob@example.net"}}},
		{"bsd-mailx", "-i root", Command{IgnoreDots: true, Recipients: root}},
		{"logwatch", "-t", Command{FromHeader: true}},
		{"unattended-upgrades", "-oi -t", Command{FromHeader: true, IgnoreDots: true}},
		{"smartd's script", "-i root admin@example.com", Command{IgnoreDots: true, Recipients: []string{"root", "admin@example.com"}}},
		{"Django, Perl, Ruby", "-t -oi -oem", Command{FromHeader: true, IgnoreDots: true}},
		{"a cluster", "-tiv", Command{FromHeader: true, IgnoreDots: true, Verbose: true}},
		{"a cluster with a value at its end", "-itfbob@example.net", Command{From: "bob@example.net", HasFrom: true, FromHeader: true, IgnoreDots: true}},
		{"a cluster with its value in the next word", "-tif bob@example.net", Command{From: "bob@example.net", HasFrom: true, FromHeader: true, IgnoreDots: true}},
		{"options behind recipients", "root -f bob@example.net -i", Command{From: "bob@example.net", HasFrom: true, IgnoreDots: true, Recipients: root}},
		{"what looks like an option behind --", "-i -- -fx@example.net", Command{IgnoreDots: true, Recipients: []string{"-fx@example.net"}}},
		{"-r, the old -f", "-r bob@example.net root", Command{From: "bob@example.net", HasFrom: true, Recipients: root}},
		{"the null sender", "-f <> root", Command{HasFrom: true, Recipients: root}},
		{"the null sender as an empty word", "-f  root", Command{HasFrom: true, Recipients: root}},
		{"a sender with a name", "-f Bob·<bob@example.net> root", Command{From: "bob@example.net", HasFrom: true, Recipients: root}},
		{"a full name of several words", "-F Zoë·Q.·Public root", Command{FullName: "Zoë Q. Public", Recipients: root}},
		{"separate -o", "-o i -o em root", Command{IgnoreDots: true, Recipients: root}},
		{"-oi taken back", "-oi -oiFalse root", Command{Recipients: root}},
		{"long options of sendmail 8", "-O IgnoreDots=true -ODeliveryMode=b root", Command{IgnoreDots: true, Recipients: root}},
		{"unknown -o, -V, -L, -h, -p, -d, -G", "-oZ9 -V x -L tag -h 3 -p SMTP:h -d8.12 -G -U -n root", Command{Recipients: root}},
		{"-q beside a mail", "-q root", Command{Recipients: root}},
		{"a list in one word", "bob@example.net,·Eve·<eve@example.net> root", Command{Recipients: []string{"bob@example.net", "eve@example.net", "root"}}},
		{"-bm", "-bm root", Command{Recipients: root}},
		{"-bs", "-bs -i", Command{Mode: Speak, IgnoreDots: true}},
		{"-b s", "-b s", Command{Mode: Speak}},
		{"mailq", "-bp", Command{Mode: List}},
		{"newaliases", "-bi -oA/etc/mail/aliases", Command{Mode: Aliases, AliasesFile: "/etc/mail/aliases"}},
		{"-q", "-q15m", Command{Mode: Flush}},
		{"settings", "-C /etc/x.conf root", Command{Settings: "/etc/x.conf", Recipients: root}},
		{"help", "--help", Command{Mode: Help}},
		{"help as of our other commands", "-h", Command{Mode: Help}},
	} {
		t.Run(c.who, func(t *testing.T) {
			if c.want.Mode == 0 {
				c.want.Mode = Deliver
			}
			got, err := Parse(wordsOf(c.words))
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s\ngot  %+v, %v\nwant %+v", c.words, got, err, c.want)
			}
		})
	}
}

func wordsOf(s string) []string {
	words := strings.Split(s, " ")
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "·", " ")
	}
	return words
}

func TestParseRefuses(t *testing.T) {
	for words, want := range map[string]string{
		"-i":                       "no recipients",
		"-f":                       "option -f needs a value",
		"-t -f not·an·address":     `option -f: "not an address" is not an address`,
		"-t -f a@b,c@d":            "option -f",
		"-t -f a@b>\r\nRCPT·TO:<c": "option -f",
		"-y root":                  `there is no option "-y"`,
		"--to root":                `there is no option "--to"`,
		"-bd":                      "would start a daemon",
		"-bd -q15m":                "would start a daemon",
		"-bv root":                 `there is no mode "-bv"`,
		"a@b@c":                    `recipient "a@b@c"`,
		"bob@example.net>":         "is not an address",
		"bob@example.net\r\nDATA":  "is not an address",
	} {
		_, err := Parse(wordsOf(words))
		var failed *Error
		if !errors.As(err, &failed) || failed.Code != Usage || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", words, err, want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q: the error has more lines than one", words)
		}
	}
}

// FuzzParse: whatever the words, an address that comes out cannot end an SMTP
// command or begin another one.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"-t\x00-f\x00a@b", "-fa@b\x00c", "-oi\x00--\x00-x", "-bs", "-q", "-F\x00\xff\x00root"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(strings.Split(s, "\x00"))
		if err != nil {
			return
		}
		for _, a := range append(slices.Clone(c.Recipients), c.From) {
			if strings.ContainsAny(a, "\r\n\x00") || !strings.HasPrefix(a, `"`) && strings.ContainsAny(a, "<> \t,;") {
				t.Errorf("%q gives the address %q", s, a)
			}
		}
		if c.Mode == Deliver && len(c.Recipients) == 0 && !c.FromHeader {
			t.Errorf("%q has nobody to send to", s)
		}
	})
}
