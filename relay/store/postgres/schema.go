package postgres

// queueSchema is the first version. The literals in indexes and functions are the
// states of package stored. Times are milliseconds since 1970 by the database's clock, 0 is none.
//
// recipients is the hot table: each claim and each settlement writes a row anew. So it
// is narrow, its indexes but one are partial, pages keep room, and autovacuum comes by
// the number of dead rows and not by a part of the backlog. Bodies are apart.
const queueSchema = `
CREATE TABLE smtp2rest.relays (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name text NOT NULL,          -- the machine's
	version text NOT NULL,       -- the program's
	started timestamptz NOT NULL,
	heartbeat timestamptz NOT NULL,
	expires timestamptz NOT NULL -- when its claims end, if it is not heard of again
) WITH (fillfactor = 50);

CREATE SEQUENCE smtp2rest.arrivals; -- mails.seq
CREATE SEQUENCE smtp2rest.fences;

CREATE TABLE smtp2rest.mails (
	seq bigint PRIMARY KEY, -- about the order of arrival
	id text COLLATE "C" NOT NULL UNIQUE,
	sender text NOT NULL,
	lane text COLLATE "C" NOT NULL,
	domain text NOT NULL,
	urgent bool NOT NULL,
	received bigint NOT NULL,
	client text NOT NULL,   -- JSON
	bounce_of text NOT NULL,
	account text COLLATE "C" NOT NULL, -- '' is the default account
	size bigint NOT NULL,
	kept bool NOT NULL,     -- its content is in bodies
	done bigint NOT NULL,   -- when the last recipient was sent
	damaged bool NOT NULL,
	sum bigint NOT NULL     -- of the content
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX mails_done ON smtp2rest.mails (done) WHERE done > 0;
CREATE INDEX mails_account ON smtp2rest.mails (account) WHERE account <> '' AND done = 0;

CREATE TABLE smtp2rest.bodies (
	seq bigint NOT NULL,
	part int NOT NULL,
	raw bytea NOT NULL,
	PRIMARY KEY (seq, part)
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
	toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 50000, toast.autovacuum_vacuum_cost_delay = 0);
ALTER TABLE smtp2rest.bodies ALTER COLUMN raw SET STORAGE EXTERNAL; -- to compress costs more time than it saves space

CREATE TABLE smtp2rest.recipients (
	mail bigint NOT NULL,   -- mails.seq
	n int NOT NULL,         -- its number in the envelope
	state smallint NOT NULL, -- 0 ready, 1 later, 2 claimed, 3 held, 4 sent, 5 failed
	hold bool NOT NULL,     -- claimed, and to be held after it
	bounced bool NOT NULL,
	attempts int NOT NULL,
	owner bigint NOT NULL,  -- relays.id of the latest claim
	due bigint NOT NULL,
	since bigint NOT NULL,
	started bigint NOT NULL, -- the latest claim
	ended bigint NOT NULL,
	fence bigint NOT NULL,  -- the latest claim's number
	settled bigint NOT NULL, -- the latest settled claim's
	account text COLLATE "C" NOT NULL,
	turn text COLLATE "C" NOT NULL, -- '' for urgent mail, '=' and the sender's domain otherwise
	lane text COLLATE "C" NOT NULL,
	addr text NOT NULL,
	PRIMARY KEY (mail, n)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX recipients_ready ON smtp2rest.recipients (account, turn, lane, mail, n) WHERE state = 0;
CREATE INDEX recipients_later ON smtp2rest.recipients (account, due) WHERE state = 1;
CREATE INDEX recipients_claimed ON smtp2rest.recipients (owner) WHERE state = 2;
CREATE INDEX recipients_held ON smtp2rest.recipients (mail, n) WHERE state = 3;
CREATE INDEX recipients_failed ON smtp2rest.recipients (mail, n) WHERE state = 5;
CREATE INDEX recipients_unbounced ON smtp2rest.recipients (mail) WHERE state = 5 AND NOT bounced;

CREATE TABLE smtp2rest.attempts (
	mail bigint NOT NULL,
	n int NOT NULL,
	fence bigint NOT NULL,
	started bigint NOT NULL,
	unknown bool NOT NULL,
	not_counted bool NOT NULL,
	kind int NOT NULL,
	status int NOT NULL,
	message_id text NOT NULL,
	detail text NOT NULL,
	cause text NOT NULL,
	retry_after bigint NOT NULL, -- nanoseconds, as took
	took bigint NOT NULL,
	PRIMARY KEY (mail, n, fence)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

-- Whose lane of an account was served last. Who claims locks it, for as long as the
-- one statement takes: so claims of an account come one after the other, over all relays.
CREATE TABLE smtp2rest.turns (
	account text COLLATE "C" PRIMARY KEY,
	turn text COLLATE "C" NOT NULL,
	lane text COLLATE "C" NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE smtp2rest.marks (
	name text COLLATE "C" PRIMARY KEY,
	value text NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The sum of the rows is what there is. Each kind of work of each relay has its own, so
-- that they do not wait for each other.
CREATE TABLE smtp2rest.counts (
	relay bigint NOT NULL, -- 0: of relays that are gone
	part int NOT NULL,
	open bigint NOT NULL,  -- recipients that wait or are claimed
	held bigint NOT NULL,
	sent bigint NOT NULL,
	failed bigint NOT NULL,
	unbounced bigint NOT NULL,
	mails bigint NOT NULL, -- whose content is kept
	bytes bigint NOT NULL,
	failed_mails bigint NOT NULL, -- the part of them that has no open recipient
	failed_bytes bigint NOT NULL,
	PRIMARY KEY (relay, part)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE TYPE smtp2rest.counted AS (open bigint, held bigint, sent bigint, failed bigint, unbounced bigint,
	mails bigint, bytes bigint, failed_mails bigint, failed_bytes bigint);

-- What mails count for.
CREATE FUNCTION smtp2rest.summary_1(seqs bigint[]) RETURNS smtp2rest.counted LANGUAGE sql SET enable_seqscan = off SET jit = off AS $$
	WITH r AS (SELECT mail, count(*) FILTER (WHERE state <= 2) AS open, count(*) FILTER (WHERE state = 3) AS held,
			count(*) FILTER (WHERE state = 4) AS sent, count(*) FILTER (WHERE state = 5) AS failed,
			count(*) FILTER (WHERE state = 5 AND NOT bounced) AS unbounced
		FROM smtp2rest.recipients WHERE mail = ANY(seqs) GROUP BY mail)
	SELECT (coalesce(sum(r.open), 0), coalesce(sum(r.held), 0), coalesce(sum(r.sent), 0), coalesce(sum(r.failed), 0), coalesce(sum(r.unbounced), 0),
		count(*) FILTER (WHERE m.kept), coalesce(sum(m.size) FILTER (WHERE m.kept), 0),
		count(*) FILTER (WHERE m.kept AND coalesce(r.open + r.held, 0) = 0), coalesce(sum(m.size) FILTER (WHERE m.kept AND coalesce(r.open + r.held, 0) = 0), 0)
		)::smtp2rest.counted
	FROM smtp2rest.mails m LEFT JOIN r ON r.mail = m.seq WHERE m.seq = ANY(seqs)
$$;

CREATE FUNCTION smtp2rest.count_1(of_relay bigint, of_part int, a smtp2rest.counted, b smtp2rest.counted) RETURNS void LANGUAGE sql AS $$
	INSERT INTO smtp2rest.counts AS c VALUES (of_relay, of_part, (a).open - (b).open, (a).held - (b).held, (a).sent - (b).sent,
		(a).failed - (b).failed, (a).unbounced - (b).unbounced, (a).mails - (b).mails, (a).bytes - (b).bytes,
		(a).failed_mails - (b).failed_mails, (a).failed_bytes - (b).failed_bytes)
	ON CONFLICT (relay, part) DO UPDATE SET open = c.open + excluded.open, held = c.held + excluded.held, sent = c.sent + excluded.sent,
		failed = c.failed + excluded.failed, unbounced = c.unbounced + excluded.unbounced, mails = c.mails + excluded.mails,
		bytes = c.bytes + excluded.bytes, failed_mails = c.failed_mails + excluded.failed_mails, failed_bytes = c.failed_bytes + excluded.failed_bytes
$$;

-- Lets go of the content of mails all of whose recipients were sent, or of all of them.
CREATE FUNCTION smtp2rest.finish_1(seqs bigint[], forget bool, ended bigint) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	finished bigint[];
BEGIN
	-- From the end, because recipients are tried from the beginning.
	SELECT array_agg(s) INTO finished FROM unnest(seqs) s
		WHERE (SELECT 1 FROM smtp2rest.recipients WHERE mail = s AND state <> 4 ORDER BY n DESC LIMIT 1) IS NULL;
	IF finished IS NULL THEN
		RETURN;
	END IF;
	DELETE FROM smtp2rest.bodies WHERE seq = ANY(finished);
	IF forget THEN
		PERFORM smtp2rest.remove_1(finished);
	ELSE
		UPDATE smtp2rest.mails SET kept = false, done = greatest(1, ended) WHERE seq = ANY(finished);
	END IF;
END $$;

CREATE FUNCTION smtp2rest.remove_1(seqs bigint[]) RETURNS void LANGUAGE sql SET enable_seqscan = off SET jit = off AS $$
	DELETE FROM smtp2rest.attempts WHERE mail = ANY(seqs);
	DELETE FROM smtp2rest.recipients WHERE mail = ANY(seqs);
	DELETE FROM smtp2rest.bodies WHERE seq = ANY(seqs);
	DELETE FROM smtp2rest.mails WHERE seq = ANY(seqs);
$$;
` + enqueueFunction + claimFunction + settleFunction + operatorFunctions + readFunctions
