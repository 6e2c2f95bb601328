package postgres

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// listLock is the advisory lock of whoever changes the list of suppressions. It makes
// the order of the numbers that of the commits: a relay that has seen one number has
// seen all before it.
const listLock = 0x73327273757070 // "s2rsupp"

// listTx is a transaction that changes the list.
type listTx struct {
	ctx context.Context
	pgx.Tx
	told []string // of what was learnt in vain
}

// changeList runs f in a transaction that alone changes the list, and tells what came
// of it: here before it returns, to other relays soon.
func (s *Records) changeList(ctx context.Context, f func(ctx context.Context, t *listTx) error) error {
	var told []string
	err := s.d.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(listLock)); err != nil {
			return err
		}
		t := &listTx{ctx: ctx, Tx: tx}
		err := f(ctx, t)
		told = t.told
		return err
	})
	if s.wrote(err) != nil {
		return err
	}
	s.d.Notify(topic, "")
	_ = s.catchUp(context.WithoutCancel(ctx), told...) // again at the next look
	return nil
}

// set puts entries on the list.
func (t *listTx) set(entries ...suppress.Entry) error {
	var b pgx.Batch
	for _, e := range entries {
		b.Queue(setSuppression, clean(e.Address), e.Reason.String(), e.Source.String(), stored.Millis(e.Since), stored.Millis(e.Expires), clean(e.Event), clean(e.Detail), clean(e.Note))
	}
	return t.SendBatch(t.ctx, &b).Close()
}

const setSuppression = `INSERT INTO smtp2rest.suppressions (` + stored.SuppressionColumns + `, seq)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, nextval('smtp2rest.suppression_seq'))
		ON CONFLICT (address) DO UPDATE SET reason = excluded.reason, source = excluded.source, since = excluded.since,
			expires = excluded.expires, event = excluded.event, detail = excluded.detail, note = excluded.note, seq = excluded.seq`

// unset takes addresses off the list, and says how many were on it. All of them are
// told: a list in memory may have what is not here.
func (t *listTx) unset(addresses []string) (int64, error) {
	if _, err := t.Exec(t.ctx, `INSERT INTO smtp2rest.suppressions_gone (address, seq, at)
		SELECT a, nextval('smtp2rest.suppression_seq'), now() FROM unnest($1::text[]) AS a
		ON CONFLICT (address) DO UPDATE SET seq = excluded.seq, at = excluded.at`, addresses); err != nil {
		return 0, err
	}
	tag, err := t.Exec(t.ctx, "DELETE FROM smtp2rest.suppressions WHERE address = ANY($1::text[])", addresses)
	return tag.RowsAffected(), err
}

// learn merges entries, in their order, into what is known at the time of each.
func (t *listTx) learn(entries []suppress.Entry, now func(suppress.Entry) time.Time) error {
	addresses := make([]string, len(entries))
	for i, e := range entries {
		addresses[i] = clean(e.Address)
	}
	known, removed := map[string]suppress.Entry{}, map[string]time.Time{}
	err := eachRow(t.ctx, t, func(r pgx.Rows) error {
		e, err := readSuppression(r)
		known[e.Address] = e
		return err
	}, "SELECT "+stored.SuppressionColumns+" FROM smtp2rest.suppressions WHERE address = ANY($1::text[])", addresses)
	if err != nil {
		return err
	}
	err = eachRow(t.ctx, t, func(r pgx.Rows) error {
		var address string
		var at int64
		err := r.Scan(&address, &at)
		removed[address] = stored.Time(at)
		return err
	}, "SELECT address, at FROM smtp2rest.removals WHERE address = ANY($1::text[])", addresses)
	if err != nil {
		return err
	}
	learnt := map[string]suppress.Entry{}
	for i, e := range entries {
		e.Address = addresses[i]
		if merged, changed := suppress.Learn(known[e.Address], e, removed[e.Address], now(e)); changed {
			known[e.Address], learnt[e.Address] = merged, merged
		} else {
			t.told = append(t.told, e.Address)
		}
	}
	return t.set(slices.Collect(maps.Values(learnt))...)
}

func findSuppression(ctx context.Context, c querier, address string) (e suppress.Entry, ok bool, err error) {
	err = eachRow(ctx, c, func(r pgx.Rows) error {
		ok = true
		e, err = readSuppression(r)
		return err
	}, "SELECT "+stored.SuppressionColumns+" FROM smtp2rest.suppressions WHERE address = $1", clean(address))
	return e, ok, err
}

// readSuppression reads stored.SuppressionColumns, and more behind them.
func readSuppression(r pgx.Rows, more ...any) (e suppress.Entry, err error) {
	var reason, source string
	var since, expires int64
	err = r.Scan(append([]any{&e.Address, &reason, &source, &since, &expires, &e.Event, &e.Detail, &e.Note}, more...)...)
	stored.Reasons(&e, reason, source)
	e.Since, e.Expires = stored.Time(since), stored.Time(expires)
	return e, err
}

// attachStep is how many entries are read at a time when a list is filled.
const attachStep = 5000

// Attach implements suppress.Store. What is changed meanwhile is told after it.
func (s *Records) Attach(ctx context.Context, w suppress.Watcher) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	s.watching.Lock()
	defer s.watching.Unlock()
	var latest int64
	err := s.rows(ctx, func(r pgx.Rows) error { return r.Scan(&latest) }, "SELECT "+latestChange)
	for after := ""; err == nil; {
		n := 0
		err = s.rows(ctx, func(r pgx.Rows) error {
			e, err := readSuppression(r)
			w.Set(e)
			n, after = n+1, e.Address
			return err
		}, "SELECT "+stored.SuppressionColumns+" FROM smtp2rest.suppressions WHERE address > $1 ORDER BY address LIMIT $2", after, attachStep)
		if n < attachStep {
			break
		}
	}
	if err != nil {
		return err
	}
	s.watcher, s.latest, s.current = w, latest, time.Now()
	return s.tell(ctx)
}

const latestChange = `greatest((SELECT coalesce(max(seq), 0) FROM smtp2rest.suppressions), (SELECT coalesce(max(seq), 0) FROM smtp2rest.suppressions_gone))`

// catchUp tells the watcher what changed since it was last told, and how the addresses
// stand that it may have got ahead of.
func (s *Records) catchUp(ctx context.Context, addresses ...string) error {
	s.watching.Lock()
	defer s.watching.Unlock()
	if s.watcher == nil {
		return nil
	}
	return s.tell(ctx, addresses...)
}

// tell is catchUp for who has the lock. What it reads is how things stand now, which
// may be later than the change: then that is told again.
func (s *Records) tell(ctx context.Context, addresses ...string) error {
	now := time.Now()
	for more, asked := true, append([]string{}, addresses...); more; asked = []string{} {
		var changes []change
		err := s.rows(ctx, func(r pgx.Rows) error {
			var c change
			var err error
			c.e, err = readSuppression(r, &c.seq, &c.known)
			changes = append(changes, c)
			return err
		}, `SELECT c.address, coalesce(s.reason, ''), coalesce(s.source, ''), coalesce(s.since, 0), coalesce(s.expires, 0),
				coalesce(s.event, ''), coalesce(s.detail, ''), coalesce(s.note, ''), c.seq, s.address IS NOT NULL
			FROM ((SELECT seq, address FROM smtp2rest.suppressions WHERE seq > $1 ORDER BY seq LIMIT $3)
				UNION ALL (SELECT seq, address FROM smtp2rest.suppressions_gone WHERE seq > $1 ORDER BY seq LIMIT $3)
				UNION ALL SELECT 0, a FROM unnest($2::text[]) AS a) c
			LEFT JOIN smtp2rest.suppressions s ON s.address = c.address ORDER BY c.seq LIMIT $3 + cardinality($2::text[])`, s.latest, asked, attachStep)
		if err != nil {
			return err
		}
		for _, c := range changes {
			if c.known {
				s.watcher.Set(c.e)
			} else {
				s.watcher.Unset(c.e.Address)
			}
			s.latest = max(s.latest, c.seq)
		}
		more = len(changes) >= attachStep
	}
	if gap := now.Sub(s.current); gap > goneKept {
		s.d.log.Warn("what other relays took off the list of suppressions meanwhile may still be refused here until the next start", "not_heard_of_them_for", gap.Round(time.Second))
	}
	s.current = now
	return nil
}

// change is the latest one of an address, and how that stands.
type change struct {
	seq   int64
	known bool
	e     suppress.Entry
}

// Entry implements suppress.Store.
func (s *Records) Entry(ctx context.Context, address string) (e suppress.Entry, ok bool, err error) {
	if err := s.enter(ctx); err != nil {
		return e, false, err
	}
	err = s.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		e, ok, err = findSuppression(ctx, c, address)
		return err
	})
	return e, ok, err
}

// Entries implements suppress.Store.
func (s *Records) Entries(ctx context.Context, f suppress.Filter) (all []suppress.Entry, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	domain := ""
	if f.Domain != "" {
		domain = "@" + f.Domain
	}
	limit := int64(f.Limit)
	if limit <= 0 {
		limit = 1 << 40
	}
	err = s.rows(ctx, func(r pgx.Rows) error {
		e, err := readSuppression(r)
		all = append(all, e)
		return err
	}, "SELECT "+stored.SuppressionColumns+` FROM smtp2rest.suppressions WHERE address > $1
		AND (cardinality($2::text[]) = 0 OR reason = ANY($2)) AND (cardinality($3::text[]) = 0 OR source = ANY($3))
		AND ($4::text = '' OR right(address, length($4::text)) = $4::text) ORDER BY address LIMIT $5`,
		clean(f.After), stored.Words(f.Reasons), stored.Words(f.Sources), clean(domain), limit)
	return all, err
}

// Put implements suppress.Store.
func (s *Records) Put(ctx context.Context, entries []suppress.Entry) error {
	if err := s.enter(ctx); err != nil || len(entries) == 0 {
		return err
	}
	return s.changeList(ctx, func(ctx context.Context, t *listTx) error {
		addresses := make([]string, len(entries))
		for i, e := range entries {
			addresses[i] = clean(e.Address)
		}
		if _, err := t.Exec(ctx, "DELETE FROM smtp2rest.removals WHERE address = ANY($1::text[])", addresses); err != nil {
			return err
		}
		return t.set(entries...)
	})
}

// Remove implements suppress.Store.
func (s *Records) Remove(ctx context.Context, addresses []string, at time.Time) (removed int, err error) {
	if err := s.enter(ctx); err != nil || len(addresses) == 0 {
		return 0, err
	}
	unique := slices.Compact(slices.Sorted(slices.Values(addresses)))
	err = s.changeList(ctx, func(ctx context.Context, t *listTx) error {
		n, err := t.unset(unique)
		if err != nil {
			return err
		}
		removed = int(n)
		_, err = t.Exec(ctx, `INSERT INTO smtp2rest.removals (address, at) SELECT a, $2 FROM unnest($1::text[]) AS a
			ON CONFLICT (address) DO UPDATE SET at = excluded.at`, unique, stored.Millis(at))
		return err
	})
	return removed, err
}

// Erase takes an address off the list as if it had never been there, and says whether
// it was on it: off the list of every account. Only what other relays need to forget it
// as well stays, for a day.
func (s *Records) Erase(ctx context.Context, address string) (known bool, err error) {
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	key := clean(suppress.Normalise(address))
	err = s.changeList(ctx, func(ctx context.Context, t *listTx) error {
		// Those of other accounts are behind their names: see suppress.Split.
		keys, err := texts(ctx, t, `SELECT address FROM (SELECT address FROM smtp2rest.suppressions UNION SELECT address FROM smtp2rest.removals) a
			WHERE address = $1 OR address > '@' AND address < 'A' AND substr(address, strpos(address, '/') + 1) = $1`, key)
		if err != nil {
			return err
		}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
		n, err := t.unset(keys)
		if err != nil {
			return err
		}
		known = n > 0
		_, err = t.Exec(ctx, "DELETE FROM smtp2rest.removals WHERE address = ANY($1::text[])", keys)
		return err
	})
	return known, err
}

// TakeEvent implements suppress.Store.
func (s *Records) TakeEvent(ctx context.Context, e relay.Event, address string, learnt *suppress.Entry) (fresh bool, err error) {
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	insert := []any{clean(e.ID), clean(e.Type), stored.Millis(e.Created), stored.Millis(e.Occurred), clean(address), clean(e.Email), clean(e.MessageID),
		clean(e.BounceCode), clean(e.BounceReason), stored.Millis(e.Received)}
	if learnt == nil {
		n, err := s.exec(ctx, insertEvent, insert...)
		return n > 0 && err == nil, err
	}
	err = s.changeList(ctx, func(ctx context.Context, t *listTx) error {
		tag, err := t.Exec(ctx, insertEvent, insert...)
		if fresh = tag.RowsAffected() > 0; !fresh || err != nil {
			return err
		}
		return t.learn([]suppress.Entry{*learnt}, func(suppress.Entry) time.Time { return e.Received })
	})
	return fresh && err == nil, err
}

const insertEvent = `INSERT INTO smtp2rest.events (id, type, created, occurred, address, email, message_id, bounce_code, bounce_reason, received)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING`

// Tend implements suppress.Store.
func (s *Records) Tend(ctx context.Context, now, forget time.Time) (more bool, err error) {
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	const expired = "SELECT address FROM smtp2rest.suppressions WHERE expires > 0 AND expires <= $1 LIMIT $2"
	some := int64(0)
	if err := s.rows(ctx, func(r pgx.Rows) error { some++; return nil }, expired, stored.Millis(now), stored.TendStep); err != nil {
		return false, err
	}
	if some > 0 {
		err = s.changeList(ctx, func(ctx context.Context, t *listTx) error {
			addresses, err := texts(ctx, t, expired, stored.Millis(now), stored.TendStep)
			if err == nil {
				_, err = t.unset(addresses)
			}
			return err
		})
		if err != nil {
			return false, err
		}
	}
	removals, err := s.exec(ctx, "DELETE FROM smtp2rest.removals WHERE address IN (SELECT address FROM smtp2rest.removals WHERE at < $1 LIMIT $2)", stored.Millis(forget), stored.TendStep)
	if err != nil {
		return false, err
	}
	gone, err := s.exec(ctx, `DELETE FROM smtp2rest.suppressions_gone WHERE address IN (SELECT address FROM smtp2rest.suppressions_gone
		WHERE at < now() - make_interval(secs => $1) LIMIT $2)`, goneKept.Seconds(), stored.TendStep)
	if err != nil {
		return false, err
	}
	// Times are of the clocks of relays, which may have been put back: the order of
	// arrival is what bounds the step, the time what ends it.
	events, err := s.exec(ctx, `DELETE FROM smtp2rest.events WHERE seq IN
		(SELECT seq FROM (SELECT seq, received FROM smtp2rest.events ORDER BY seq LIMIT $1) first WHERE received < $2)`, stored.TendStep, stored.Millis(forget))
	return max(some, removals, gone, events) == stored.TendStep, err
}

// BadNews counts the hard bounces and complaints that came since a time.
func (s *Records) BadNews(ctx context.Context, since time.Time) (bounced, complained int64, err error) {
	err = s.rows(ctx, func(r pgx.Rows) error { return r.Scan(&bounced, &complained) },
		`SELECT count(*) FILTER (WHERE type = 'bounced.hard'), count(*) FILTER (WHERE type = 'complained')
		FROM smtp2rest.events WHERE type IN ('bounced.hard', 'complained') AND received >= $1`, stored.Millis(since))
	return bounced, complained, err
}
