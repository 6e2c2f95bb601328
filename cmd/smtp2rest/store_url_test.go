package main

import (
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// A database is named without its password, and has no files to set aside.
func TestTheURLOfTheStore(t *testing.T) {
	env := harness.Environ(t, "NEXUSPROMAIL_API_KEY="+harness.PlantedKey, "FROM_EMAIL=hello@mail.example.com", "SMTP2REST_STORE_URL=postgres://relay:hunter2@db.example.com/mail")
	wantOut(t, harness.Execute(t, env, "", "queue", "set-aside", "--data-dir", t.TempDir()), 1, "", "there is no queue in")
	wantOut(t, harness.Execute(t, append(env, "SMTP2REST_DATA_DIR="+t.TempDir()), "", "queue", "set-aside"), 1, "", "the queue is in postgres://relay@db.example.com/mail, and this command works on files")
	wantOut(t, harness.Execute(t, env, "", "check"), 0, "set (from environment SMTP2REST_STORE_URL)", "")
	broken := append(env, "SMTP2REST_STORE_URL=mysql://relay:hunter2@db")
	wantOut(t, harness.Execute(t, broken, "", "check"), terminal.ExitConfig, "", "found something that is not the URL of a database")
}
