package records

import "github.com/smtp2rest/smtp2rest/relay/store/internal/db"

// applicationID marks our files; see db.Schema.
const applicationID = 0x73327272 // "s2rr"

// schema is what the file holds. All times in it are milliseconds since 1970,
// 0 is none. Each part of it stands in the file that uses it.
func schema() db.Schema {
	return db.Schema{
		ApplicationID: applicationID,
		Migrations: []string{
			suppressionsSchema + eventsSchema,
			historySchema,
			eventsIndex,
		},
		Newer: ErrNewer,
		Older: ErrOlder,
	}
}
