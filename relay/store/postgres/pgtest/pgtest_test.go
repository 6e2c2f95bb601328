package pgtest

import "testing"

// TestServer: what is written survives the end of the server, in either way.
func TestServer(t *testing.T) {
	s := Start(t)
	db := s.Database()
	s.Exec(db, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	s.Stop()
	s.Restart()
	s.Exec(db, "INSERT INTO t VALUES (2)")
	s.Kill()
	s.Restart()
	s.Exec(db, "SELECT 1 / (count(*) - 1) FROM t")
	s.Drop(db)
	if err := s.exec(db, "SELECT 1"); err == nil {
		t.Error("the database is still there")
	}
}
