package postgres

// recordsSchema is what is known about mail besides the mail itself. Addresses stand in
// the form in which they are compared, the key.
//
// The history is not in daily partitions that are dropped. A mail is found by its id, by
// the API's id of a recipient and by addresses, and goes on for as long as it waits, so
// that each of these would have to be looked for in every partition, and the id could not
// be unique; and a day with one mail that waits could not be dropped. Rows are removed in
// steps instead.
const recordsSchema = `
CREATE SEQUENCE smtp2rest.suppression_seq;
CREATE TABLE smtp2rest.suppressions (
	address text COLLATE "C" PRIMARY KEY,
	reason text NOT NULL,
	source text NOT NULL,    -- who told us: api, webhook, operator
	since bigint NOT NULL,
	expires bigint NOT NULL,
	event text NOT NULL,     -- the id of the event that caused it
	detail text NOT NULL,    -- what the provider said of it
	note text NOT NULL,      -- the operator's
	seq bigint NOT NULL      -- of the latest change; in the order of the commits
);
CREATE UNIQUE INDEX suppressions_seq ON smtp2rest.suppressions (seq);
CREATE INDEX suppressions_expires ON smtp2rest.suppressions (expires) WHERE expires > 0;

-- What was taken off the list lately, for relays that have it in memory.
CREATE TABLE smtp2rest.suppressions_gone (
	address text COLLATE "C" PRIMARY KEY,
	seq bigint NOT NULL,
	at timestamptz NOT NULL
);
CREATE INDEX suppressions_gone_seq ON smtp2rest.suppressions_gone (seq);

-- What an operator took off the list, so that what happened before it does not put it
-- on again.
CREATE TABLE smtp2rest.removals (
	address text COLLATE "C" PRIMARY KEY,
	at bigint NOT NULL
);
CREATE INDEX removals_at ON smtp2rest.removals (at);

-- What the provider's webhooks told. The email is as the provider wrote it.
CREATE TABLE smtp2rest.events (
	seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the order of arrival
	id text COLLATE "C" NOT NULL,
	type text NOT NULL,
	created bigint NOT NULL,
	occurred bigint NOT NULL,
	address text COLLATE "C" NOT NULL,
	email text NOT NULL,
	message_id text COLLATE "C" NOT NULL,
	bounce_code text NOT NULL,
	bounce_reason text NOT NULL,
	received bigint NOT NULL
);
CREATE UNIQUE INDEX events_id ON smtp2rest.events (id);
CREATE INDEX events_message ON smtp2rest.events (message_id) WHERE message_id <> '';
CREATE INDEX events_address ON smtp2rest.events (address);
CREATE INDEX events_bad ON smtp2rest.events (received) WHERE type IN ('bounced.hard', 'complained');

CREATE TABLE smtp2rest.history_mails (
	id         text COLLATE "C" PRIMARY KEY,
	received   bigint NOT NULL,
	sender     text NOT NULL,
	sender_key text COLLATE "C" NOT NULL,
	account    text NOT NULL,
	message_id text COLLATE "C" NOT NULL, -- of the mail's header
	subject    text NOT NULL,
	head       text NOT NULL,             -- the rest of what is known, as JSON
	reply      text NOT NULL,
	answered   bigint NOT NULL
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX history_mails_received ON smtp2rest.history_mails (received, id);
CREATE INDEX history_mails_sender ON smtp2rest.history_mails (sender_key, received);
CREATE INDEX history_mails_message_id ON smtp2rest.history_mails (message_id) WHERE message_id <> '';
CREATE TABLE smtp2rest.history_recipients (
	mail      text COLLATE "C" NOT NULL,
	key       text COLLATE "C" NOT NULL,
	received  bigint NOT NULL,            -- of the mail
	addr      text NOT NULL,
	named     text NOT NULL,              -- the alias that the client named
	named_key text COLLATE "C" NOT NULL,
	state     text NOT NULL,
	ended     bigint NOT NULL,
	api_id    text COLLATE "C" NOT NULL,  -- the API's message_id
	steps     text NOT NULL,              -- JSON, one on each line
	PRIMARY KEY (mail, key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX history_recipients_key ON smtp2rest.history_recipients (key, received, mail);
CREATE INDEX history_recipients_named ON smtp2rest.history_recipients (named_key) WHERE named_key <> '';
CREATE INDEX history_recipients_api_id ON smtp2rest.history_recipients (api_id) WHERE api_id <> '';
CREATE TABLE smtp2rest.history_forgotten (id text COLLATE "C" PRIMARY KEY);
`
