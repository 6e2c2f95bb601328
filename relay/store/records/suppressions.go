package records

const suppressionsSchema = `
CREATE TABLE suppressions (
	address TEXT PRIMARY KEY, -- in the form in which addresses are compared
	reason TEXT NOT NULL,
	source TEXT NOT NULL,     -- who told us: api, webhook, operator
	since INT NOT NULL,
	expires INT NOT NULL,
	event TEXT NOT NULL,      -- the id of the event that caused it
	detail TEXT NOT NULL,     -- what the provider said of it
	note TEXT NOT NULL        -- the operator's
) WITHOUT ROWID;
CREATE INDEX suppressions_expires ON suppressions(expires) WHERE expires > 0;

-- What an operator took off the list, so that what happened before it does not
-- put it on again.
CREATE TABLE removals (
	address TEXT PRIMARY KEY,
	at INT NOT NULL
) WITHOUT ROWID;
CREATE INDEX removals_at ON removals(at);
`
