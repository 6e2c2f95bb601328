package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// applicationID marks our files, so that file(1) and we ourselves know them.
const applicationID = 0x73327271 // "s2rq"

// The states as they are stored. queue.Waiting is two of them: ready for the
// lanes' turns, or later, to be made ready when its time comes. That is what
// makes both questions, "whose turn is it" and "what is due next", a look at
// the beginning of an index, however much is waiting.
const (
	ready = iota
	later
	claimed
	held
	sent
	failed
)

// Where a mail's content is.
const (
	bodyGone    = iota // not kept: every recipient was sent
	bodyTable          // in the table bodies
	bodySpool          // in the file named in mails.spool
	bodySegment        // in a segment, at mails.place
)

// migrations[i] takes a database from version i to i+1. A released one is
// never changed. The literals in the partial indexes are the states above.
//
// Bodies are a table of their own so that lists, claims and checks never read
// them, and so that a settlement does not rewrite them.
var migrations = [...]string{`
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
	body INT NOT NULL,       -- where it is: gone, in bodies, in a file of its own, in a segment
	spool TEXT NOT NULL,     -- the file's name
	place INT NOT NULL,      -- the segment's number << 32 | the offset in it; 0 when it is elsewhere
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
	turn TEXT NOT NULL,      -- '' for urgent mail, '=' and the sender's domain otherwise
	lane TEXT NOT NULL,
	state INT NOT NULL,      -- 0 ready, 1 later, 2 claimed, 3 held, 4 sent, 5 failed
	hold INT NOT NULL,       -- claimed, and to be held after it
	due INT NOT NULL,
	lease INT NOT NULL,      -- claimed until
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
`}

// ErrNewer: the data directory was written by a later version of this program.
var ErrNewer = errors.New("the queue was written by a newer version of smtp2rest; start that version, nothing was changed")

// checkHeader looks at the file's first bytes without opening it as a
// database, because opening alone may write. The version stands there and not
// in the log only: migrate sees to that.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var header [100]byte // https://www.sqlite.org/fileformat2.html#the_database_header
	switch _, err := io.ReadFull(f, header[:]); {
	case errors.Is(err, io.EOF):
		return nil // empty: not yet made into a database
	case err != nil:
		return &CorruptError{Path: path, Reason: "it is too short to be a database"}
	}
	if string(header[:16]) != "SQLite format 3\x00" {
		return &CorruptError{Path: path, Reason: "it is not an SQLite database"}
	}
	version := binary.BigEndian.Uint32(header[60:])
	id := binary.BigEndian.Uint32(header[68:])
	if id != applicationID && (version != 0 || id != 0) {
		return fmt.Errorf("%s is a database of another program (application id %#x)", path, id)
	}
	if int(version) > len(migrations) {
		return fmt.Errorf("%w (version %d, known up to %d)", ErrNewer, version, len(migrations))
	}
	return nil
}

// migrate brings the schema up to date, each step in one transaction.
func migrate(c *conn) error {
	version, err := c.number("PRAGMA user_version")
	if err != nil {
		return err
	}
	if version > int64(len(migrations)) {
		return fmt.Errorf("%w (version %d)", ErrNewer, version)
	}
	for ; version < int64(len(migrations)); version++ {
		step := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; PRAGMA application_id = %d; COMMIT",
			migrations[version], version+1, applicationID)
		if err := c.script(step); err != nil {
			return fmt.Errorf("queue schema, step %d: %w", version+1, err)
		}
		if err := checkpoint(c); err != nil { // for checkHeader
			return err
		}
	}
	return nil
}
