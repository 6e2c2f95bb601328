package db

import (
	"fmt"
	"path/filepath"
	"testing"
)

// TestStatementsAreBounded: texts that depend on what somebody asks for do not stay
// prepared for ever, and all of them work, one inside another as well.
func TestStatementsAreBounded(t *testing.T) {
	c, err := Connect(Name(filepath.Join(t.TempDir(), "x.db"), ""))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxStatements {
		sum := int64(0)
		err := c.Each(func(r Row) error {
			n, err := c.Number(fmt.Sprintf("SELECT %d + ?", i), 1)
			sum = n + r.Int(0)
			return err
		}, fmt.Sprintf("SELECT -%d + ?", i), 1)
		if err != nil || sum != 2 {
			t.Fatalf("statement %d: %d, %v", i, sum, err)
		}
		if _, err := c.Exec(fmt.Sprintf("PRAGMA user_version = %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.stmts); n > maxStatements {
		t.Errorf("%d statements are prepared", n)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
