package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Forget implements history.Store. Clean stays false: what is removed is in the
// server's files until it is vacuumed, and in its write-ahead log and backups for as
// long as those are kept, where nobody can look by SQL.
func (s *Records) Forget(ctx context.Context, address string, queued []string) (history.Forgotten, error) {
	if s.closed.Load() {
		return history.Forgotten{}, errRecordsClosed
	}
	f := forgetting{key: clean(suppress.Normalise(address)), typed: clean(address)}
	err := s.wrote(s.d.tx(ctx, func(ctx context.Context, t pgx.Tx) error {
		f.done = history.Forgotten{}
		f.ctx, f.t = ctx, t
		return f.run(queued)
	}))
	if err != nil {
		return f.done, err
	}
	return f.done, s.clearMentions(ctx, &f)
}

// forgetting erases one address.
type forgetting struct {
	ctx        context.Context
	t          pgx.Tx
	key, typed string
	done       history.Forgotten
}

func (f *forgetting) run(queued []string) error {
	if _, err := f.t.Exec(f.ctx, "SELECT pg_advisory_xact_lock($1)", int64(historyLock)); err != nil {
		return err
	}
	for _, id := range queued {
		if err := f.closeBook(id); err != nil {
			return err
		}
	}
	sent, err := texts(f.ctx, f.t, "SELECT id FROM smtp2rest.history_mails WHERE sender_key = $1 ORDER BY id", f.key)
	if err != nil {
		return err
	}
	for _, id := range sent {
		if err := f.mail(id); err != nil {
			return err
		}
	}
	got, err := texts(f.ctx, f.t, "SELECT DISTINCT mail FROM smtp2rest.history_recipients WHERE key = $1 OR named_key = $1 AND named_key <> '' ORDER BY mail", f.key)
	if err != nil {
		return err
	}
	for _, id := range got {
		if err := f.recipient(id); err != nil {
			return err
		}
	}
	n, err := f.exec("DELETE FROM smtp2rest.events WHERE address = $1", f.key)
	f.done.Events = n
	return err
}

func (f *forgetting) exec(sql string, args ...any) (int, error) {
	tag, err := f.t.Exec(f.ctx, sql, args...)
	return int(tag.RowsAffected()), err
}

func (f *forgetting) count(sql string, args ...any) (n int64, err error) {
	err = f.t.QueryRow(f.ctx, sql, args...).Scan(&n)
	return n, err
}

// waits reports whether a mail is not settled.
func (f *forgetting) waits(id string) (bool, error) {
	n, err := f.count("SELECT count(*) FROM smtp2rest.history_recipients WHERE mail = $1 AND state = 'waiting'", id)
	return n > 0, err
}

// mail removes a record, and keeps it from coming back while its mail is not settled.
func (f *forgetting) mail(id string) error {
	waits, err := f.waits(id)
	if err != nil {
		return err
	}
	if waits {
		return f.closeBook(id)
	}
	return f.remove(id)
}

func (f *forgetting) remove(id string) error {
	n, err := f.exec("DELETE FROM smtp2rest.history_mails WHERE id = $1", id)
	f.done.Mails += n
	if err == nil {
		_, err = f.exec("DELETE FROM smtp2rest.history_recipients WHERE mail = $1", id)
	}
	return err
}

// closeBook removes a record, if there is one, and has nothing more recorded.
func (f *forgetting) closeBook(id string) error {
	if _, err := f.exec("INSERT INTO smtp2rest.history_forgotten VALUES ($1) ON CONFLICT DO NOTHING", clean(id)); err != nil {
		return err
	}
	return f.remove(clean(id))
}

// recipient removes a recipient, with the record if it was the only one.
func (f *forgetting) recipient(id string) error {
	others, err := f.count("SELECT count(*) FROM smtp2rest.history_recipients WHERE mail = $1 AND key <> $2 AND named_key <> $2", id, f.key)
	if err != nil {
		return err
	}
	waits, err := f.waits(id)
	if err != nil {
		return err
	}
	if others == 0 || waits {
		return f.mail(id)
	}
	n, err := f.exec("DELETE FROM smtp2rest.history_recipients WHERE mail = $1 AND (key = $2 OR named_key = $2)", id, f.key)
	if err != nil {
		return err
	}
	f.done.Recipients += n
	// The others' record goes on without what was said to or about this one.
	_, err = f.exec("UPDATE smtp2rest.history_mails SET subject = '', reply = '' WHERE id = $1", id)
	return err
}

// mentionStep is how many rows are searched at a time.
const mentionStep = 20_000

// clearMentions clears what is left of the address in the words of other records: as
// the author of mail of another envelope sender, in a reply, in what the API said of
// somebody else. All records are read for it, in steps.
func (s *Records) clearMentions(ctx context.Context, f *forgetting) error {
	for _, one := range []struct{ table, id, words, clear string }{
		{"history_mails", "id", "subject || ' ' || reply || ' ' || head || ' ' || message_id", "subject = '', reply = '', head = '', message_id = ''"},
		{"history_recipients", "mail", "steps", "steps = ''"},
	} {
		for after := ""; ; {
			var last *string
			err := s.rows(ctx, func(r pgx.Rows) error { return r.Scan(&last) },
				"SELECT max(id) FROM (SELECT "+one.id+" AS id FROM smtp2rest."+one.table+" WHERE "+one.id+" > $1 ORDER BY 1 LIMIT $2) step", after, mentionStep)
			if err != nil {
				return err
			}
			if last == nil {
				break
			}
			words := `lower((` + one.words + `) COLLATE "C")`
			n, err := s.exec(ctx, "UPDATE smtp2rest."+one.table+" SET "+one.clear+" WHERE "+one.id+" > $1 AND "+one.id+` <= $2
				AND (strpos(`+words+`, lower($3::text COLLATE "C")) > 0 OR strpos(`+words+`, lower($4::text COLLATE "C")) > 0)`, after, *last, f.key, f.typed)
			if err != nil {
				return err
			}
			f.done.Cleared += int(n)
			after = *last
		}
	}
	return nil
}
