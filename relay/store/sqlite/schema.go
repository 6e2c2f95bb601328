package sqlite

import (
	"fmt"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

const ready, later, claimed, held, sent, failed = stored.Ready, stored.Later, stored.Claimed, stored.Held, stored.Sent, stored.Failed

// Where a mail's content is.
const (
	bodyGone  = iota // not kept: every recipient was sent
	bodyTable        // in the table bodies
	bodySpool        // in the file named in mails.spool
)

// queueMigrations[i] takes a queue's database from version i to i+1. A released one is
// never changed. The literals in the partial indexes are the states of package stored.
//
// Bodies are a table of their own so that lists, claims and checks never read
// them, and so that a settlement does not rewrite them.
var queueMigrations = [...]string{`
CREATE TABLE mails (
	seq INTEGER PRIMARY KEY, -- the order of arrival; never used twice
	id TEXT NOT NULL,
	sender TEXT NOT NULL,
	lane TEXT NOT NULL,
	domain TEXT NOT NULL,
	urgent INT NOT NULL,
	received INT NOT NULL,   -- all times are milliseconds since 1970; 0 is none
	client TEXT NOT NULL,    -- JSON
	bounce_of TEXT NOT NULL,
	size INT NOT NULL,
	body INT NOT NULL,       -- where it is: gone, in bodies, in a file of its own; up to version 3 also in a segment
	spool TEXT NOT NULL,     -- the file's name
	place INT NOT NULL,      -- where in a segment it was; 0 since version 4
	done INT NOT NULL,       -- when the last recipient was sent
	damaged INT NOT NULL,
	envelope_sum INT NOT NULL,
	body_sum INT NOT NULL
);
CREATE UNIQUE INDEX mails_id ON mails(id);
CREATE INDEX mails_done ON mails(done) WHERE done > 0;
CREATE INDEX mails_spool ON mails(spool) WHERE spool <> '';

CREATE TABLE bodies (
	seq INTEGER PRIMARY KEY,
	raw BLOB NOT NULL
);

-- Without an index from segments to mails, which each mail would have to pay
-- for: the mails of a segment lie between its first and its last.
CREATE TABLE segments (
	id INTEGER PRIMARY KEY,
	live INT NOT NULL,       -- mails whose body is there
	mails INT NOT NULL,      -- and how many there ever were
	first INT NOT NULL,      -- mails.seq
	last INT NOT NULL
);

CREATE TABLE recipients (
	mail INT NOT NULL,       -- mails.seq
	n INT NOT NULL,          -- its number in the envelope
	addr TEXT NOT NULL,
	turn TEXT NOT NULL,      -- '' for urgent mail, '=' and the sender's domain otherwise; since version 5 behind '@', the account and '/', if it is not the default
	lane TEXT NOT NULL,
	state INT NOT NULL,      -- 0 ready, 1 later, 2 claimed, 3 held, 4 sent, 5 failed
	hold INT NOT NULL,       -- claimed, and to be held after it
	due INT NOT NULL,
	lease INT NOT NULL,      -- 0; it was until when it is claimed
	attempts INT NOT NULL,
	since INT NOT NULL,
	started INT NOT NULL,    -- the latest claim
	ended INT NOT NULL,
	fence INT NOT NULL,      -- the latest claim's number
	settled INT NOT NULL,    -- the latest settled claim's
	bounced INT NOT NULL,
	sum INT NOT NULL,
	PRIMARY KEY (mail, n)
) WITHOUT ROWID;
CREATE INDEX recipients_ready ON recipients(turn, lane) WHERE state = 0;
CREATE INDEX recipients_later ON recipients(due) WHERE state = 1;
CREATE INDEX recipients_claimed ON recipients(lease) WHERE state = 2;
CREATE INDEX recipients_held ON recipients(mail) WHERE state = 3;
CREATE INDEX recipients_failed ON recipients(mail) WHERE state = 5;
CREATE INDEX recipients_unbounced ON recipients(mail) WHERE state = 5 AND bounced = 0;

CREATE TABLE attempts (
	mail INT NOT NULL,
	n INT NOT NULL,
	fence INT NOT NULL,
	started INT NOT NULL,
	unknown INT NOT NULL,
	not_counted INT NOT NULL,
	kind INT NOT NULL,
	status INT NOT NULL,
	message_id TEXT NOT NULL,
	detail TEXT NOT NULL,
	cause TEXT NOT NULL,
	retry_after INT NOT NULL, -- nanoseconds, as took
	took INT NOT NULL,
	PRIMARY KEY (mail, n, fence)
) WITHOUT ROWID;

CREATE TABLE marks (
	name TEXT PRIMARY KEY,
	value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE counts (
	one INTEGER PRIMARY KEY,
	waiting INT NOT NULL,
	claimed INT NOT NULL,
	held INT NOT NULL,
	sent INT NOT NULL,
	failed INT NOT NULL,
	mails INT NOT NULL,
	bytes INT NOT NULL,
	unbounced INT NOT NULL,
	seq INT NOT NULL,
	fence INT NOT NULL
);
INSERT INTO counts VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
`, `
ALTER TABLE counts ADD COLUMN place INT NOT NULL DEFAULT 0; -- up to which the segments are in the database; 0 before any was logged
`, `
ALTER TABLE counts ADD COLUMN failed_mails INT NOT NULL DEFAULT 0; -- of mails and bytes, the part that has no open recipient
ALTER TABLE counts ADD COLUMN failed_bytes INT NOT NULL DEFAULT 0;
UPDATE counts SET (failed_mails, failed_bytes) = (SELECT count(*), coalesce(sum(size), 0) FROM mails WHERE seq IN
	(SELECT mail FROM recipients r WHERE state = 5 AND NOT EXISTS (SELECT 1 FROM recipients WHERE mail = r.mail AND state IN (0, 1, 2, 3))));
`, `
-- After segments.go. mails.place and recipients.lease stay, without a use: to drop
-- them would write all rows anew, and a queue that is full must open.
DROP TABLE segments;
ALTER TABLE counts DROP COLUMN place;
`, `
ALTER TABLE mails ADD COLUMN account TEXT NOT NULL DEFAULT ''; -- '' is the default account
CREATE INDEX mails_account ON mails(account) WHERE account <> '' AND done = 0;
`, `
DROP INDEX recipients_later; -- what is due next is asked for each account
CREATE INDEX recipients_later ON recipients(turn, due) WHERE state = 1;
`}

// lastWithSegments is the last version that kept mail in segments.
const lastWithSegments = 3

// The contract's errors, with their subject.
var (
	ErrNewer = fmt.Errorf("the queue was %w", queue.ErrNewer)
	ErrOlder = fmt.Errorf("the queue was %w", queue.ErrOlder)
)

func queueSpec() spec {
	return spec{what: "queue", file: QueueFile, lockFile: queueLock, applicationID: 0x73327271, // "s2rq"
		migrations: queueMigrations[:], newer: ErrNewer, older: ErrOlder, closedErr: queue.ErrClosed, readers: 4, cache: 16000}
}

// migrate brings the schema up to a version.
func (s *Queue) migrate(version int) error {
	schema := s.schema()
	schema.Migrations = schema.Migrations[:version]
	if err := schema.Migrate(s.conn); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	return nil
}

// upgrade brings a database up to date, with the mail that is in segments. It is
// checked before anything but its tables is touched: those that steer delivery,
// because a queue that cannot claim or settle stands still. Bodies are left out so
// that a start does not take as long as the backlog is big: each has a checksum of
// its own, verified when it is read. So are attempts, of which each recipient may
// have twenty.
func (s *Queue) upgrade() error {
	version, err := s.conn.Number("PRAGMA user_version")
	if err != nil {
		return err
	}
	old := version <= lastWithSegments
	if old {
		if err := s.migrate(lastWithSegments); err != nil {
			return err
		}
	}
	if err := s.check("counts", "marks", "recipients", "mails"); err != nil {
		return err
	}
	counted, err := s.rebuildCounts()
	if err != nil {
		return err
	}
	if err := s.loadCounts(); err != nil {
		return err
	}
	if old {
		if err := s.takeSegments(counted); err != nil {
			return err
		}
	}
	return s.migrate(len(queueMigrations))
}
