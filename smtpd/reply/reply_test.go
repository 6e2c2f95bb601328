package reply

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestCatalogue has every reply as the client reads it.
func TestCatalogue(t *testing.T) {
	may := time.Date(2026, 5, 4, 23, 0, 0, 0, time.UTC)
	hard := Suppression{Address: "a@b", Reason: "hard bounce", HardBounce: true, Since: may}
	soft := Suppression{Address: "c@d", Reason: "complaint", Since: may}
	for _, tt := range []struct {
		reply *Reply
		want  string
	}{
		{Accepted("q1", "m1", "m2"), "250 2.0.0 accepted q1 m1 m2"},
		{AcceptedExcept("q1", []string{"a@b", "c@d"}), "250 2.0.0 accepted q1 except <a@b>, <c@d>"},
		{Ok("MAIL"), "250 2.1.0 sender ok"},
		{Ok("RCPT"), "250 2.1.5 recipient ok"},
		{Queued("q1"), "250 2.0.0 queued q1"},
		{Suppressed(hard), "550 5.1.1 <a@b> suppressed: hard bounce on 2026-05-04"},
		{Suppressed(soft), "550 5.7.1 <c@d> suppressed: complaint since 2026-05-04"},
		{Suppressed(Suppression{Address: "a@b", Reason: "unsubscribe"}), "550 5.7.1 <a@b> suppressed: unsubscribe"},
		{AllSuppressed([]Suppression{hard, soft}), "550 5.7.1 suppressed: <a@b>, <c@d>"},
		{AllSuppressed([]Suppression{hard}), "550 5.1.1 suppressed: <a@b>"},
		{RefusedByAPI("bad\r\n250 subject"), "554 5.6.0 refused by the API: bad 250 subject"},
		{RefusedByAPI(""), "554 5.6.0 refused by the API: no reason given"},
		{TooLarge(), "552 5.3.4 message too large"},
		{NotConfigured(), "451 4.3.5 the relay is not configured correctly and its operator must fix it; try again later"},
		{RateLimited(1500 * time.Millisecond), "451 4.3.2 try again in 2 s"},
		{RateLimited(-1), "451 4.3.2 try again in 1 s"},
		{APIUnavailable(), "451 4.4.2 the mail API does not answer, try again later"},
		{CannotCarry("100% of <x.exe>"), "554 5.6.1 100% of <x.exe>"},
		{Unparsable("no header"), "554 5.6.0 no header"},
		{SenderDomainRefused("From <a@b> is foreign"), "550 5.7.1 From <a@b> is foreign"},
		{SenderNotAllowed("a@b"), "553 5.7.1 <a@b> is not allowed as a sender here"},
		{FromNotAllowed("a@b"), "550 5.7.1 From <a@b> is not allowed here"},
		{RecipientNotAllowed("a@b"), "550 5.7.1 <a@b> is not allowed as a recipient here"},
		{AuthRequired(), "530 5.7.0 authentication required"},
		{RelayDenied(), "554 5.7.1 relaying denied for this address"},
		{WrongPassword(), "535 5.7.8 authentication failed"},
		{TooManyFailures(), "421 4.7.0 too many failed attempts"},
		{AuthNeedsTLS(), "538 5.7.11 encryption required for authentication"},
		{BadAddress("MAIL"), "553 5.1.7 bad address syntax"},
		{BadAddress("RCPT"), "553 5.1.3 bad address syntax"},
		{TooManyRecipients(), "452 4.5.3 too many recipients"},
		{StorageFull(), "452 4.3.1 out of storage, try again later"},
		{QueueUnreachable(), "451 4.3.0 the queue cannot be reached, try again later"},
		{MemorySpent(), "452 4.3.1 out of memory, try again later"},
		{TooManyConnections(), "421 4.7.0 too many connections, try again later"},
		{HeaderTooLarge(), "552 5.3.4 message header too large"},
		{TooManyMessages(), "421 4.7.0 too many messages in one connection, connect again"},
		{RateExceeded("this user", 90*time.Second), "450 4.7.1 too many recipients from this user, try again in 90 s"},
		{RateExceeded("this sender", time.Millisecond), "450 4.7.1 too many recipients from this sender, try again in 1 s"},
		{MailLoop(), "554 5.4.6 mail loop: too many Received headers"},
		{ShuttingDown(), "421 4.3.2 shutting down, try again later"},
		{Bug(), "421 4.3.0 internal error"},
		{LocalError(), "451 4.3.0 local error, try again later"},
		{Interrupted(), "451 4.4.2 the message was cut short"},
		{BadCommand("command not recognized"), "500 5.5.2 command not recognized"},
		{BodyLineTooLong(), "554 5.6.0 a line is too long"},
		{LineTooLong(), "500 5.5.2 line too long"},
		{BadArgument("BDAT needs a size"), "501 5.5.4 BDAT needs a size"},
		{NotImplemented("AUTH"), "502 5.5.1 AUTH is not available here"},
		{BadSequence("no recipients"), "503 5.5.1 no recipients"},
		{UnknownParameter("X%d"), "555 5.5.4 parameter X%d is not supported"},
		{ReadyForTLS(), "220 2.0.0 ready to start TLS"},
		{LoggedIn(), "235 2.7.0 authentication succeeded"},
		{UnknownMechanism(), "504 5.5.4 unknown authentication mechanism"},
		{BadLogin(), "501 5.5.2 cannot read the authentication data"},
		{LoginCancelled(), "501 5.7.0 authentication cancelled"},
		{ChunkTaken(7), "250 2.0.0 7 octets received"},
		{TooSlow(), "421 4.4.2 timeout, closing the connection"},
		{BelowRate(), "421 4.4.2 too slow, closing the connection"},
		{TooManyErrors(), "421 4.7.0 too many errors, closing the connection"},
		{WrongProtocol(), "554 5.5.1 this server speaks SMTP, closing the connection"},
		{TooEarly("the greeting"), "554 5.5.1 wait for the greeting before you send more, closing the connection"},
	} {
		if got := tt.reply.String(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		s := tt.reply.SMTP()
		if got := fmt.Sprintf("%d %d.%d.%d %s", s.Code, s.EnhancedCode[0], s.EnhancedCode[1], s.EnhancedCode[2], s.Message); got != tt.want {
			t.Errorf("SMTP gives %s\nwant       %s", got, tt.want)
		}
		if tt.reply.Positive() != strings.HasPrefix(tt.want, "2") {
			t.Errorf("Positive of %s is %v", tt.want, tt.reply.Positive())
		}
	}
}

func TestFrom(t *testing.T) {
	secret := errors.New("dial tcp 10.0.0.1: key sk_live_1")
	for _, tt := range []struct {
		err  error
		want string // "" is nil
	}{
		{nil, ""},
		{TooLarge(), "552 5.3.4 message too large"},
		{fmt.Errorf("intake: %w", TooLarge().Because(secret)), "552 5.3.4 message too large"},
		{errors.Join(secret, MailLoop()), "554 5.4.6 mail loop: too many Received headers"},
		{secret, "451 4.3.0 local error, try again later"},
		{context.DeadlineExceeded, "451 4.3.0 local error, try again later"},
		{fmt.Errorf("call: %w", context.Canceled), "421 4.3.2 shutting down, try again later"},
	} {
		r := From(tt.err)
		if r == nil {
			if tt.want != "" {
				t.Errorf("%v gives nil", tt.err)
			}
			continue
		}
		if r.String() != tt.want || strings.Contains(r.SMTP().Message, "sk_live") {
			t.Errorf("%v gives %s, want %s", tt.err, r, tt.want)
		}
		if errors.Is(tt.err, secret) && !errors.Is(r, secret) && r.Code() == 451 {
			t.Errorf("the cause of %v is lost to the log", tt.err)
		}
	}
	if r := TooLarge().Because(secret); r.Error() != "552 5.3.4 message too large: "+secret.Error() {
		t.Errorf("Error is %q", r.Error())
	}
}

// FuzzText: no text of anybody's makes a reply of more than one line of at
// most 512 octets.
func FuzzText(f *testing.F) {
	line := regexp.MustCompile(`^554 5\.6\.0 [ -~]*$`)
	f.Add("a\r\n250 2.0.0 ok")
	f.Add(strings.Repeat("ü%s", 400))
	f.Fuzz(func(t *testing.T, text string) {
		if s := Unparsable(text).String(); !line.MatchString(s) || len(s) > 510 {
			t.Fatalf("%q gives %q", text, s)
		}
	})
}
