package reply

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// everyReply gives each function of the package words that came from outside.
func everyReply(words string, n int64) map[string]*Reply {
	suppressed := Suppression{Address: words, Reason: words, HardBounce: n%2 == 0, Since: time.Unix(n, 0)}
	return map[string]*Reply{
		"Accepted":            Accepted(words, words, words),
		"AcceptedExcept":      AcceptedExcept(words, []string{words, words}),
		"Ok":                  Ok(words),
		"Queued":              Queued(words),
		"Suppressed":          Suppressed(suppressed),
		"AllSuppressed":       AllSuppressed([]Suppression{suppressed, suppressed}),
		"RefusedByAPI":        RefusedByAPI(words),
		"TooLarge":            TooLarge(),
		"NotConfigured":       NotConfigured(),
		"RateLimited":         RateLimited(time.Duration(n)),
		"APIUnavailable":      APIUnavailable(),
		"CannotCarry":         CannotCarry(words),
		"Unparsable":          Unparsable(words),
		"SenderDomainRefused": SenderDomainRefused(words),
		"SenderNotAllowed":    SenderNotAllowed(words),
		"FromNotAllowed":      FromNotAllowed(words),
		"RecipientNotAllowed": RecipientNotAllowed(words),
		"AuthRequired":        AuthRequired(),
		"RelayDenied":         RelayDenied(),
		"WrongPassword":       WrongPassword(),
		"TooManyFailures":     TooManyFailures(),
		"AuthNeedsTLS":        AuthNeedsTLS(),
		"BadAddress":          BadAddress(words),
		"TooManyRecipients":   TooManyRecipients(),
		"StorageFull":         StorageFull(),
		"QueueUnreachable":    QueueUnreachable(),
		"MemorySpent":         MemorySpent(),
		"TooManyConnections":  TooManyConnections(),
		"HeaderTooLarge":      HeaderTooLarge(),
		"TooManyMessages":     TooManyMessages(),
		"RateExceeded":        RateExceeded(words, time.Duration(n)),
		"BodyLineTooLong":     BodyLineTooLong(),
		"BelowRate":           BelowRate(),
		"MailLoop":            MailLoop(),
		"ShuttingDown":        ShuttingDown(),
		"Bug":                 Bug(),
		"LocalError":          LocalError(),
		"Interrupted":         Interrupted(),
		"BadCommand":          BadCommand(words),
		"LineTooLong":         LineTooLong(),
		"BadArgument":         BadArgument(words),
		"NotImplemented":      NotImplemented(words),
		"BadSequence":         BadSequence(words),
		"UnknownParameter":    UnknownParameter(words),
		"ReadyForTLS":         ReadyForTLS(),
		"LoggedIn":            LoggedIn(),
		"UnknownMechanism":    UnknownMechanism(),
		"BadLogin":            BadLogin(),
		"LoginCancelled":      LoginCancelled(),
		"ChunkTaken":          ChunkTaken(n),
		"TooSlow":             TooSlow(),
		"TooManyErrors":       TooManyErrors(),
		"WrongProtocol":       WrongProtocol(),
		"TooEarly":            TooEarly(words),
	}
}

// A reply that is added must be held to the same rules, and have its line in
// TestCatalogue.
func TestEveryReplyIsTested(t *testing.T) {
	table, err := os.ReadFile("reply_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tested := everyReply("x", 1)
	declared := 0
	for _, file := range []string{"catalogue.go", "protocol.go"} {
		for _, name := range replyFunctions(t, file) {
			declared++
			if tested[name] == nil {
				t.Errorf("%s: %s is not in everyReply", file, name)
			}
			if !strings.Contains(string(table), "{"+name+"(") {
				t.Errorf("%s: %s has no line in TestCatalogue", file, name)
			}
		}
	}
	if declared != len(tested) {
		t.Errorf("%d replies are declared, %d tested", declared, len(tested))
	}
}

func replyFunctions(t *testing.T, name string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.IsExported() {
			names = append(names, f.Name.Name)
		}
	}
	return names
}

// docs/replies.md has the codes of every reply, and Codes, by which clients' replies
// are counted, has the code.
func TestEveryReplyIsDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/replies.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range everyReply("MAIL", 1) {
		codes := fmt.Sprintf("%d %s", r.Code(), r.Enhanced())
		if !strings.Contains(string(document), "`"+codes) {
			t.Errorf("%s: docs/replies.md does not have %s", name, codes)
		}
		if !slices.Contains(Codes(), r.Code()) {
			t.Errorf("%s: Codes does not have %d", name, r.Code())
		}
	}
}

// Whatever the words: one line of at most 512 octets with its CRLF, printable,
// and the enhanced code of the class of the code (RFC 2034 section 4).
func TestEveryReplyIsOneGoodLine(t *testing.T) {
	form := regexp.MustCompile(`^([245])[0-9]{2} ([245])\.[0-9]{1,3}\.[0-9]{1,3} [!-~]([ -~]*[!-~])?$`)
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.OneOf(rapid.String(), rapid.StringN(0, 4000, -1),
			rapid.Just("a\r\n250 2.0.0 ok\r\n"), rapid.Just("100%s%d\x00\x1b[31m\u2028")).Draw(t, "words")
		for name, r := range everyReply(words, rapid.Int64().Draw(t, "n")) {
			line := r.String()
			m := form.FindStringSubmatch(line)
			if m == nil && r.Text() != "" {
				t.Fatalf("%s: %q is no good line", name, line)
			}
			if m != nil && m[1] != m[2] {
				t.Fatalf("%s: %q: the classes differ", name, line)
			}
			if len(line)+2 > 512 {
				t.Fatalf("%s: %d octets", name, len(line)+2)
			}
			smtp := r.SMTP()
			if got := fmt.Sprintf("%d %d.%d.%d %s", smtp.Code, smtp.EnhancedCode[0], smtp.EnhancedCode[1], smtp.EnhancedCode[2], smtp.Message); got != line {
				t.Fatalf("%s: go-smtp is given %q, not %q", name, got, line)
			}
			if got := strconv.Itoa(r.Code()) + " " + r.Enhanced(); !strings.HasPrefix(line, got+" ") {
				t.Fatalf("%s: %q is not the beginning of %q", name, got, line)
			}
		}
	})
}

// However deep a cause is wrapped, and whatever of ours wraps it.
func TestNoCauseReachesTheClient(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := errors.New("open /etc/smtp2rest/key: Bearer sk_live_planted")
		err := secret
		for range rapid.IntRange(0, 5).Draw(t, "depth") {
			switch rapid.IntRange(0, 3).Draw(t, "how") {
			case 0:
				err = fmt.Errorf("sk_live_planted: %w", err)
			case 1:
				err = errors.Join(errors.New("sk_live_planted"), err)
			case 2:
				err = StorageFull().Because(err)
			default:
				err = Unparsable("a line is too long").Because(err)
			}
		}
		r := From(err)
		for _, said := range []string{r.String(), r.Text(), r.SMTP().Message, r.SMTP().Error()} {
			if strings.Contains(said, "planted") || strings.Contains(said, "/etc/") {
				t.Fatalf("the client is told %q", said)
			}
		}
		if !errors.Is(r, secret) {
			t.Fatalf("the log is not told the cause of %v", r)
		}
	})
}

// Replies are shared by nobody, but Because is called on what a function
// returned, and must not change it.
func TestBecauseMakesACopy(t *testing.T) {
	r := TooLarge()
	with := r.Because(errors.New("cause"))
	if r.Unwrap() != nil || with.Unwrap() == nil || r.String() != with.String() {
		t.Errorf("Because changed %v or did not make %v", r, with)
	}
}
