package spool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// A Conn is a connection to the relay's own listener.
type Conn interface {
	net.Conn
	// Say has the messages that come from now on be taken under an id, as kept by the user.
	Say(id string, uid uint32)
}

// Refused is a recipient who does not get the mail, with the relay's reply.
type Refused struct{ Recipient, Reply string }

// errLater is returned for a mail that the relay does not take now.
var errLater = errors.New("the relay takes this mail later")

// A session hands one mail over, in one or more transactions. What it did in an earlier
// session it does not do again.
type session struct {
	id      string
	uid     uint32
	mail    Mail
	done    map[string]bool // recipients that are dealt with
	refused func(ctx context.Context, kept Kept, m Mail, list []Refused) error
}

// run returns nil when all recipients are dealt with. The error is errLater if only this
// mail has to wait.
func (s *session) run(ctx context.Context, conn Conn) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	client := smtp.NewClient(conn)
	if err := client.Hello(s.mail.Host); err != nil {
		return err
	}
	for rest := s.rest(); len(rest) > 0; rest = s.rest() {
		if err := s.transact(ctx, client, conn, rest); err != nil {
			return err
		}
	}
	_ = client.Quit() // the mail is taken
	return nil
}

func (s *session) rest() []string {
	return slices.DeleteFunc(slices.Clone(s.mail.Recipients), func(to string) bool { return s.done[to] })
}

// transact hands the mail over for as many recipients as the relay takes at once. Those
// that it refuses do not keep the others from getting it: nobody is there who could mend
// the list.
func (s *session) transact(ctx context.Context, client *smtp.Client, conn Conn, rest []string) (err error) {
	var taken []string
	var refused []Refused
	defer func() {
		if told := s.refuse(ctx, refused); err == nil {
			err = told
		}
	}()
	utf8 := !isASCII(s.mail.From + strings.Join(rest, ""))
	if err := client.Mail(s.mail.From, &smtp.MailOptions{Size: int64(len(s.mail.Data)), UTF8: utf8}); err != nil {
		refused, err = judge(rest, err)
		return err
	}
	for _, to := range rest {
		err := client.Rcpt(to, nil)
		if len(taken) > 0 && isFull(err) {
			break // RFC 5321 section 4.5.3.1.10: the rest is for the next transaction
		}
		if err == nil {
			taken = append(taken, to)
			continue
		}
		one, err := judge([]string{to}, err)
		if err != nil {
			return err
		}
		refused = append(refused, one...)
	}
	if len(taken) == 0 {
		return client.Reset()
	}
	conn.Say(partID(s.id, s.mail.Recipients, taken), s.uid)
	if err := s.data(client); err != nil {
		list, err := judge(taken, err)
		refused = append(refused, list...)
		return err
	}
	s.deal(taken)
	return nil
}

func (s *session) data(client *smtp.Client) error {
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(s.mail.Data); err != nil {
		return err
	}
	return w.Close()
}

// refuse has the sender told of recipients who do not get the mail.
func (s *session) refuse(ctx context.Context, list []Refused) error {
	if len(list) == 0 {
		return nil
	}
	var to []string
	for _, r := range list {
		to = append(to, r.Recipient)
	}
	if err := s.refused(ctx, Kept{partID(s.id, s.mail.Recipients, to), s.uid}, s.mail, list); err != nil {
		return fmt.Errorf("%w: its sender cannot be told of a refusal: %w", errLater, err)
	}
	s.deal(to)
	return nil
}

func (s *session) deal(with []string) {
	for _, to := range with {
		s.done[to] = true
	}
}

// judge returns the recipients that a reply refuses for good. Any other error is returned:
// errLater for a 4xx, which may be about this mail alone.
func judge(to []string, err error) ([]Refused, error) {
	r, ok := errors.AsType[*smtp.SMTPError](err)
	switch {
	case !ok || r.Code == 421:
		return nil, err
	case r.Code/100 == 5:
		var list []Refused
		for _, one := range to {
			list = append(list, Refused{one, replyText(r)})
		}
		return list, nil
	}
	return nil, fmt.Errorf("%w: %s", errLater, replyText(r))
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// isFull recognises "too many recipients", and not "out of storage".
func isFull(err error) bool {
	r, ok := errors.AsType[*smtp.SMTPError](err)
	return ok && r.Code == 452 && r.EnhancedCode == smtp.EnhancedCode{4, 5, 3}
}

func replyText(r *smtp.SMTPError) string {
	text := strings.Join(strings.Fields(r.Message), " ")
	if e := r.EnhancedCode; e[0] > 0 {
		text = fmt.Sprintf("%d.%d.%d %s", e[0], e[1], e[2], text)
	}
	return fmt.Sprintf("%d %s", r.Code, text)
}
