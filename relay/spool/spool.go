// Package spool is the directory in which sendmail(1) keeps mail while the relay is away,
// and what hands that mail over when the relay is back.
//
// Everybody on the machine may make files in it, as in Postfix's maildrop before there was
// postdrop(1): a set-group-ID program in place of it does not work for callers without new
// privileges (NoNewPrivileges), and ours reads configuration and speaks SMTP as well. The
// directory belongs to the relay's user and has mode 3733. Nobody can list it. Its
// set-group-ID bit gives each file the relay's group, and the file's mode is 0640, so that
// the relay reads it and other users do not. Its sticky bit lets nobody remove a file but
// its owner and the relay.
//
// A file is one mail. Its name is the id that the mail has in the queue, the history and
// the log. The id is made of the time, the owner and the content, so that nobody can have
// the id of another's mail, and a file that is not whole is known by its name. The queue
// takes one mail by an id: what is handed over again after a crash is not sent again.
package spool

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

const (
	// DefaultDir is where our package makes the directory.
	DefaultDir = "/var/spool/smtp2rest"
	// Off in place of a directory is none.
	Off = "none"

	// MaxBytes bounds a file. The relay has one of them in memory at a time, which does not
	// count towards its budget: there the mail could wait for the room that it takes itself.
	MaxBytes = 32 << 20
	// maxHead bounds the envelope in it: 10,000 recipients of the greatest length.
	maxHead = 4 << 20
	// KeepFree is how much of the disk sendmail leaves free.
	KeepFree = 64 << 20

	// perOwner bounds the files of a user that are known at once. What is beyond them has
	// its turn when others have gone.
	perOwner = 1_000
)

var (
	// ErrTooLarge is returned for a mail that is not kept because of its size.
	ErrTooLarge = fmt.Errorf("it is larger than the %d MiB that are kept", MaxBytes>>20)
	// ErrNotWhole is returned for a file that Keep did not write, or that was changed.
	ErrNotWhole = errors.New("it is no mail that sendmail kept, or was changed since")
	// ErrNotOurs is returned for a directory that belongs to another user.
	ErrNotOurs = errors.New("it belongs to another user")
)

// A Mail is a mail to hand over.
type Mail struct {
	Host       string   `json:"host"` // that sendmail calls itself in EHLO
	From       string   `json:"from"` // "" is the null sender
	Recipients []string `json:"to"`
	Data       []byte   `json:"-"` // with CRLF line ends
}

// Kept says of a mail by which id it is known and who kept it.
type Kept struct {
	ID  string
	UID uint32
}

// head is the second line of a file.
type head struct {
	Mail
	Nonce string `json:"nonce"` // two equal mails of one millisecond are two mails
}

// format is the first line of a file.
const format = "smtp2rest sendmail 1\n"

// encode returns the content of a mail's file.
func encode(m Mail) ([]byte, error) {
	line, err := json.Marshal(head{m, rand.Text()})
	if err != nil {
		return nil, err
	}
	if len(line) > maxHead || len(format)+len(line)+1+len(m.Data) > MaxBytes {
		return nil, ErrTooLarge
	}
	content := make([]byte, 0, len(format)+len(line)+1+len(m.Data))
	content = append(append(append(content, format...), line...), '\n')
	return append(content, m.Data...), nil
}

// decode reads a file that has the name and belongs to the user.
func decode(name string, uid uint32, content []byte) (Mail, error) {
	made, ok := relay.IDTime(name)
	if !ok || nameOf(made, uid, content) != name {
		return Mail{}, ErrNotWhole
	}
	rest, ok := bytes.CutPrefix(content, []byte(format))
	line, data, found := bytes.Cut(rest, []byte("\n"))
	var h head
	if !ok || !found || len(line) > maxHead || json.Unmarshal(line, &h) != nil || len(h.Recipients) == 0 {
		return Mail{}, ErrNotWhole
	}
	for _, word := range append([]string{h.Host, h.From}, h.Recipients...) {
		if strings.ContainsAny(word, "\r\n") { // it would be a command of its own
			return Mail{}, ErrNotWhole
		}
	}
	h.Data = data
	return h.Mail, nil
}

// nameOf returns the name of a file.
func nameOf(made time.Time, uid uint32, content []byte) string {
	h := sha256.New()
	_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uid)) // a hash never fails
	_, _ = h.Write(content)
	return relay.IDWith(made, [7]byte(h.Sum(nil)))
}

// partID returns the id of the part of a mail that goes to some of its recipients. It is
// the mail's own for all of them. For the same recipients it is always the same.
func partID(id string, all, some []string) string {
	if len(some) == len(all) {
		return id
	}
	sum := sha256.Sum256([]byte(strings.Join(some, "\n")))
	return relay.ContinueID(id, relay.IDWith(time.Time{}, [7]byte(sum[:])))
}
