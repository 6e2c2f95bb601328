package postgres

// queueSchema is the first version: the relays.
const queueSchema = `
CREATE TABLE smtp2rest.relays (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name text NOT NULL,          -- the machine's
	version text NOT NULL,       -- the program's
	started timestamptz NOT NULL,
	heartbeat timestamptz NOT NULL,
	expires timestamptz NOT NULL -- when its claims end, if it is not heard of again
) WITH (fillfactor = 50);
`
