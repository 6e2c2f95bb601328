package records

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Forget implements history.Store. Removed rows stay in the file's free space,
// and secure_delete is not enough against that: where pages were split and
// merged before, copies are left in their corners, as the tests show. So the
// file is read, and written anew if the address is still in it.
func (s *Store) Forget(ctx context.Context, address string, queued []string) (history.Forgotten, error) {
	f := forgetting{key: suppress.Normalise(address), typed: address}
	err := s.durable(ctx, func(t *tx) (err error) {
		f.done = history.Forgotten{}
		return f.run(t, queued)
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

func (f *forgetting) run(t *tx, queued []string) error {
	for _, id := range queued {
		if err := f.closeBook(t, id); err != nil {
			return err
		}
	}
	sent, err := t.texts("SELECT id FROM mails WHERE sender_key = ?", f.key)
	if err != nil {
		return err
	}
	for _, id := range sent {
		if err := f.mail(t, id); err != nil {
			return err
		}
	}
	got, err := t.texts("SELECT mail FROM mail_recipients WHERE key = ?1 UNION SELECT mail FROM mail_recipients WHERE named_key = ?1", f.key)
	if err != nil {
		return err
	}
	for _, id := range got {
		if err := f.recipient(t, id); err != nil {
			return err
		}
	}
	if err := f.mentions(t); err != nil {
		return err
	}
	n, err := t.Exec("DELETE FROM events WHERE address = ?", f.key)
	f.done.Events = int(n)
	return err
}

// mail removes a record, and keeps it from coming back while its mail is not
// settled.
func (f *forgetting) mail(t *tx, id string) error {
	waiting, err := t.Number("SELECT count(*) FROM mail_recipients WHERE mail = ? AND state = 'waiting'", id)
	if err != nil {
		return err
	}
	if waiting > 0 {
		return f.closeBook(t, id)
	}
	f.done.Mails++
	return t.removeMail(id)
}

// closeBook removes a record, if there is one, and has nothing more recorded.
func (f *forgetting) closeBook(t *tx, id string) error {
	known, err := t.Number("SELECT count(*) FROM mails WHERE id = ?", id)
	if err != nil {
		return err
	}
	f.done.Mails += int(known)
	if _, err := t.Exec("INSERT OR IGNORE INTO mails_forgotten VALUES (?)", id); err != nil {
		return err
	}
	return t.removeMail(id)
}

// recipient removes a recipient, with the record if it was the only one.
func (f *forgetting) recipient(t *tx, id string) error {
	others, err := t.Number("SELECT count(*) FROM mail_recipients WHERE mail = ? AND key <> ? AND named_key <> ?", id, f.key, f.key)
	if err != nil {
		return err
	}
	waiting, err := t.Number("SELECT count(*) FROM mail_recipients WHERE mail = ? AND state = 'waiting'", id)
	if err != nil {
		return err
	}
	if others == 0 || waiting > 0 {
		return f.mail(t, id)
	}
	n, err := t.Exec("DELETE FROM mail_recipients WHERE mail = ? AND (key = ? OR named_key = ?)", id, f.key, f.key)
	if err != nil {
		return err
	}
	f.done.Recipients += int(n)
	// The others' record goes on without what was said to or about this one.
	_, err = t.Exec("UPDATE mails SET subject = '', reply = '' WHERE id = ?", id)
	return err
}

// mentions clears what is left of the address in the words of other records:
// as the author of mail of another envelope sender, in a reply, in what the API
// said of somebody else.
func (f *forgetting) mentions(t *tx) error {
	for _, word := range [...]string{f.key, f.typed} {
		n, err := t.Exec(`UPDATE mails SET subject = '', reply = '', head = '', message_id = ''
			WHERE instr(lower(subject || ' ' || reply || ' ' || head || ' ' || message_id), lower(?)) > 0`, word)
		if err != nil {
			return err
		}
		f.done.Cleared += int(n)
		n, err = t.Exec("UPDATE mail_recipients SET steps = '' WHERE instr(lower(steps), lower(?)) > 0", word)
		if err != nil {
			return err
		}
		f.done.Cleared += int(n)
	}
	return nil
}

// scrub empties the log into the file, looks whether any of the words is still
// there, and if so writes the file anew. It says whether they are gone in the
// end: the suppression list may have the address on purpose.
func (s *Store) scrub(ctx context.Context, words ...string) (clean bool, err error) {
	err = s.alone(ctx, func(c *db.Conn) error {
		if err := db.Checkpoint(c); err != nil {
			return err
		}
		if clean, err = s.free(words); clean || err != nil {
			return err
		}
		// A copy of the whole file does not belong in memory.
		if err := c.Script("PRAGMA temp_store = FILE; VACUUM; PRAGMA temp_store = MEMORY"); err != nil {
			return err
		}
		if err := db.Checkpoint(c); err != nil {
			return err
		}
		clean, err = s.free(words)
		return err
	})
	return clean, err
}

// free reports whether the files hold none of the words, in any case.
func (s *Store) free(words []string) (bool, error) {
	for _, path := range [...]string{s.path(), s.path() + "-wal"} {
		found, err := contains(path, words)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || found {
			return false, err
		}
	}
	return true, nil
}

// contains reads a file piece by piece; a word may span two.
func contains(path string, words []string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // read only
	const piece, overlap = 1 << 20, 1 << 10
	buf := make([]byte, piece+overlap)
	kept := 0
	for {
		n, err := io.ReadFull(f, buf[kept:])
		lower := bytes.ToLower(buf[:kept+n])
		for _, w := range words {
			if w != "" && bytes.Contains(lower, bytes.ToLower([]byte(w))) {
				return true, nil
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return false, nil
		case err != nil:
			return false, err
		}
		kept = copy(buf, buf[kept+n-overlap:kept+n])
	}
}
