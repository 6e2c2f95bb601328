package sqlite

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Forget implements history.Store. Removed rows stay in the file's free space,
// and secure_delete is not enough against that: where pages were split and
// merged before, copies are left in their corners, as the tests show. So all
// pages are read, and the file is written anew if the address is still in it.
func (s *Records) Forget(ctx context.Context, address string, queued []string) (history.Forgotten, error) {
	f := forgetting{key: suppress.Normalise(address), typed: address}
	err := s.change(ctx, func(t *tx) error {
		f.done = history.Forgotten{}
		f.run(t, queued)
		return nil
	})
	if err != nil {
		return f.done, err
	}
	f.done.Clean, err = s.scrub(ctx, f.key, f.typed)
	return f.done, err
}

// forgetting erases one address.
type forgetting struct {
	key, typed string
	done       history.Forgotten
}

func (f *forgetting) run(t *tx, queued []string) {
	for _, id := range queued {
		f.closeBook(t, id)
	}
	for _, id := range t.texts("SELECT id FROM mails WHERE sender_key = ?", f.key) {
		f.mail(t, id)
	}
	for _, id := range t.texts("SELECT mail FROM mail_recipients WHERE key = ?1 UNION SELECT mail FROM mail_recipients WHERE named_key = ?1", f.key) {
		f.recipient(t, id)
	}
	f.mentions(t)
	f.done.Events = int(t.exec("DELETE FROM events WHERE address = ?", f.key))
	t.exec("DELETE FROM forwards WHERE address = ? OR instr(lower(body), lower(?)) > 0 OR instr(lower(body), lower(?)) > 0", f.key, f.key, f.typed)
}

// waits reports whether a mail is not settled.
func waits(t *tx, id string) bool {
	return t.number("SELECT count(*) FROM mail_recipients WHERE mail = ? AND state = 'waiting'", id) > 0
}

// mail removes a record, and keeps it from coming back while its mail is not
// settled.
func (f *forgetting) mail(t *tx, id string) {
	if waits(t, id) {
		f.closeBook(t, id)
		return
	}
	f.done.Mails++
	t.removeMail(id)
}

// closeBook removes a record, if there is one, and has nothing more recorded.
func (f *forgetting) closeBook(t *tx, id string) {
	f.done.Mails += int(t.number("SELECT count(*) FROM mails WHERE id = ?", id))
	t.exec("INSERT OR IGNORE INTO mails_forgotten VALUES (?)", id)
	t.removeMail(id)
}

// recipient removes a recipient, with the record if it was the only one.
func (f *forgetting) recipient(t *tx, id string) {
	others := t.number("SELECT count(*) FROM mail_recipients WHERE mail = ? AND key <> ? AND named_key <> ?", id, f.key, f.key)
	if others == 0 || waits(t, id) {
		f.mail(t, id)
		return
	}
	f.done.Recipients += int(t.exec("DELETE FROM mail_recipients WHERE mail = ? AND (key = ? OR named_key = ?)", id, f.key, f.key))
	// The others' record goes on without what was said to or about this one.
	t.exec("UPDATE mails SET subject = '', reply = '' WHERE id = ?", id)
}

// mentions clears what is left of the address in the words of other records:
// as the author of mail of another envelope sender, in a reply, in what the API
// said of somebody else.
func (f *forgetting) mentions(t *tx) {
	for _, word := range [...]string{f.key, f.typed} {
		f.done.Cleared += int(t.exec(`UPDATE mails SET subject = '', reply = '', head = '', message_id = ''
			WHERE instr(lower(subject || ' ' || reply || ' ' || head || ' ' || message_id), lower(?)) > 0`, word))
		f.done.Cleared += int(t.exec("UPDATE mail_recipients SET steps = '' WHERE instr(lower(steps), lower(?)) > 0", word))
	}
}

// scrub empties the write-ahead log into the file, looks whether any of the
// words is still there, and if so writes the file anew. It says whether they are
// gone in the end: the suppression list may have the address on purpose.
func (s *Records) scrub(ctx context.Context, words ...string) (clean bool, err error) {
	err = s.aside(ctx, func(c *conn) error {
		if err := db.Checkpoint(c); err != nil {
			return err
		}
		if clean, err = free(c, words); clean || err != nil {
			return err
		}
		// A copy of the whole file does not belong in memory.
		if err := c.Script("PRAGMA temp_store = FILE; VACUUM; PRAGMA temp_store = MEMORY"); err != nil {
			return err
		}
		if err := db.Checkpoint(c); err != nil {
			return err
		}
		clean, err = free(c, words)
		return err
	})
	return clean, err
}

// free reports whether no page of the file holds any of the words, in any case;
// those that are not in use are looked at as well. SQLite reads the pages, since
// to open and close the file beside it would drop its locks.
func free(c *conn, words []string) (bool, error) {
	longest := 0
	for _, w := range words {
		longest = max(longest, len(w))
	}
	// A long row goes on in pages of which each begins with the number of the
	// next, and which mostly follow one another: a word may span two.
	const number = 4
	var before []byte
	err := c.Each(func(r row) error {
		page := r.Blob(0)
		seam := slices.Concat(before, page[number:min(len(page), number+longest)])
		if mentions(page, words) || mentions(seam, words) {
			return errFound
		}
		before = append(before[:0], page[max(0, len(page)-longest):]...)
		return nil
	}, "SELECT data FROM sqlite_dbpage") // https://www.sqlite.org/dbpage.html
	if errors.Is(err, errFound) {
		return false, nil
	}
	return err == nil, err
}

// errFound ends the search.
var errFound = errors.New("found")

// mentions reports whether one of the words is in b, in any case.
func mentions(b []byte, words []string) bool {
	b = bytes.ToLower(b)
	return slices.ContainsFunc(words, func(w string) bool {
		return w != "" && bytes.Contains(b, bytes.ToLower([]byte(w)))
	})
}
