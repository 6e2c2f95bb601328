package postgres

import (
	"context"
	"slices"

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
	for ids := range slices.Chunk(cleaned(queued), forgetStep) {
		if _, err := s.forgetSome(ctx, &f, func(*forgetting) ([]string, error) { return ids, nil }, (*forgetting).closeBooks); err != nil {
			return f.done, err
		}
	}
	for _, step := range []struct {
		find   string
		forget func(f *forgetting, ids []string) error
	}{
		{"SELECT id FROM smtp2rest.history_mails WHERE sender_key = $1 LIMIT $2", (*forgetting).mails},
		{"SELECT DISTINCT mail FROM smtp2rest.history_recipients WHERE key = $1 OR named_key = $1 AND named_key <> '' LIMIT $2", (*forgetting).recipients},
		{"SELECT id FROM smtp2rest.events WHERE address = $1 LIMIT $2", (*forgetting).events},
	} {
		find := func(f *forgetting) ([]string, error) { return texts(f.ctx, f.t, step.find, f.key, forgetStep) }
		for more := true; more; {
			var err error
			if more, err = s.forgetSome(ctx, &f, find, step.forget); err != nil {
				return f.done, err
			}
		}
	}
	return f.done, s.clearMentions(ctx, &f)
}

// forgetStep is how many rows are removed in one transaction, for which all others that write
// the history wait.
const forgetStep = 1000

// forgetSome forgets what find finds, in one transaction, and says whether that was something.
func (s *Records) forgetSome(ctx context.Context, f *forgetting, find func(*forgetting) ([]string, error), forget func(*forgetting, []string) error) (some bool, err error) {
	before := f.done
	err = s.wrote(s.d.tx(ctx, func(ctx context.Context, t pgx.Tx) error {
		f.ctx, f.t = ctx, t
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(historyLock)); err != nil {
			return err
		}
		ids, err := find(f)
		if some = len(ids) > 0; !some || err != nil {
			return err
		}
		return forget(f, ids)
	}))
	if err != nil {
		f.done = before
	}
	return some, err
}

// forgetting erases one address.
type forgetting struct {
	ctx        context.Context
	t          pgx.Tx
	key, typed string
	done       history.Forgotten
}

func (f *forgetting) exec(sql string, args ...any) (int, error) {
	tag, err := f.t.Exec(f.ctx, sql, args...)
	return int(tag.RowsAffected()), err
}

// closeBooks removes records, if there are some, and has nothing more recorded.
func (f *forgetting) closeBooks(ids []string) error {
	if _, err := f.exec("INSERT INTO smtp2rest.history_forgotten SELECT DISTINCT i FROM unnest($1::text[]) i ON CONFLICT DO NOTHING", ids); err != nil {
		return err
	}
	return f.remove(ids)
}

// remove removes records.
func (f *forgetting) remove(ids []string) error {
	if _, err := f.exec("DELETE FROM smtp2rest.history_recipients WHERE mail = ANY($1::text[])", ids); err != nil {
		return err
	}
	n, err := f.exec("DELETE FROM smtp2rest.history_mails WHERE id = ANY($1::text[])", ids)
	f.done.Mails += n
	return err
}

// mails removes records, and keeps those from coming back whose mail is not settled.
func (f *forgetting) mails(ids []string) error {
	waiting, err := texts(f.ctx, f.t, "SELECT DISTINCT mail FROM smtp2rest.history_recipients WHERE mail = ANY($1::text[]) AND state = 'waiting'", ids)
	if err != nil {
		return err
	}
	if err := f.closeBooks(waiting); err != nil {
		return err
	}
	return f.remove(ids)
}

// recipients removes a recipient of mails, with the record if it was the only one or the
// mail is not settled.
func (f *forgetting) recipients(ids []string) error {
	whole, err := texts(f.ctx, f.t, `SELECT i FROM unnest($1::text[]) i WHERE EXISTS (SELECT 1 FROM smtp2rest.history_recipients r WHERE r.mail = i AND r.state = 'waiting')
		OR NOT EXISTS (SELECT 1 FROM smtp2rest.history_recipients r WHERE r.mail = i AND r.key <> $2 AND r.named_key <> $2)`, ids, f.key)
	if err != nil {
		return err
	}
	if err := f.mails(whole); err != nil {
		return err
	}
	n, err := f.exec("DELETE FROM smtp2rest.history_recipients WHERE mail = ANY($1::text[]) AND (key = $2 OR named_key = $2)", ids, f.key)
	if err != nil {
		return err
	}
	f.done.Recipients += n
	// The others' record goes on without what was said to or about this one.
	_, err = f.exec("UPDATE smtp2rest.history_mails SET subject = '', reply = '' WHERE id = ANY($1::text[])", ids)
	return err
}

func (f *forgetting) events(ids []string) error {
	n, err := f.exec("DELETE FROM smtp2rest.events WHERE id = ANY($1::text[])", ids)
	f.done.Events += n
	return err
}

// cleaned is a list as PostgreSQL takes it.
func cleaned(list []string) []string {
	all := make([]string, len(list))
	for i, s := range list {
		all[i] = clean(s)
	}
	return all
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
