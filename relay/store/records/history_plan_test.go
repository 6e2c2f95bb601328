package records

import (
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// A name is found by an index, however long the history is.
func TestNamesAreFoundByAnIndex(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for what, q := range map[string]history.Query{
		"a name": {Name: "bob@example.net"}, "a local part": {Name: "bob"}, "a recipient": {Recipient: "bob@example.net"}, "a sender": {Sender: "bob@example.net"}, "an id": {ID: "06h1"},
	} {
		text, args, err := findQuery(q, 100)
		must(t, err)
		must(t, s.read(t.Context(), func(c *db.Conn) error {
			return c.Each(func(r db.Row) error {
				if step := r.Text(3); strings.HasPrefix(step, "SCAN mail") || strings.HasPrefix(step, "SCAN m") || strings.HasPrefix(step, "SCAN r") {
					t.Errorf("%s: %s", what, step)
				}
				return nil
			}, "EXPLAIN QUERY PLAN "+text, args...)
		}))
	}
}
