package sqlite

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

var update = flag.Bool("update", false, "keep the data of a new version of the schema")

// schemaArchive is a data directory as a version of the schema left it.
func schemaArchive(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("schema-%d.tar.gz", version))
}

// TestOldSchemas opens the data of every version of the schema there was. A new
// version keeps its own with -update, before anything else changes it; an
// archive is never made again.
func TestOldSchemas(t *testing.T) {
	for version := 1; version <= len(queueMigrations); version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			name := schemaArchive(version)
			_, err := os.Stat(name)
			if version == len(queueMigrations) && errors.Is(err, os.ErrNotExist) && *update {
				makeArchive(t, name)
			}
			dir := t.TempDir()
			unpack(t, name, dir)
			lookAtOld(t, dir)
		})
	}
}

var oldTime = time.UnixMilli(1_790_000_000_000)

// oldMails are of every kind that is stored differently.
func oldMails() []queue.Mail {
	var mails []queue.Mail
	for i, size := range []int{100, 200, 300, spoolAbove + 1, 0} {
		id := fmt.Sprintf("old%d", i)
		m := queue.NewMail(relay.Message{ID: id, From: "ann@example.com", Recipients: []string{"bob@example.net", "eve@example.net"},
			Client: relay.Client{Addr: "192.0.2.1:4242", Helo: "client"}, Raw: []byte(strings.Repeat("x", size)), ReceivedAt: oldTime})
		m.Lane, m.Domain, m.Urgent = "ann@example.com", "example.com", i == 1
		mails = append(mails, m)
	}
	failed := &mails[4].Recipients[1]
	failed.State, failed.Attempts, failed.Ended = queue.Failed, 1, oldTime
	failed.History = []queue.Attempt{{Started: oldTime, Outcome: relay.Outcome{Kind: relay.Refused, Status: 400, Detail: "no"}}}
	mails[4].Recipients[0].State = queue.Held
	return mails
}

// makeArchive fills a queue and packs its directory.
func makeArchive(t *testing.T, name string) {
	t.Helper()
	dir := t.TempDir()
	s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
	must(t, err)
	mails := oldMails()
	must(t, s.Enqueue(ctx, mails...))
	must(t, s.SetMark(ctx, "gate", "closed"))
	must(t, s.Close())
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	archive := tar.NewWriter(zip)
	must(t, archive.AddFS(os.DirFS(dir)))
	must(t, errors.Join(archive.Close(), zip.Close()))
	must(t, os.WriteFile(name, b.Bytes(), 0o644))
}

func unpack(t testing.TB, name, dir string) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer func() { _ = f.Close() }()
	zip, err := gzip.NewReader(f)
	must(t, err)
	archive := tar.NewReader(zip)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		if h.Typeflag == tar.TypeDir {
			must(t, os.MkdirAll(filepath.Join(dir, h.Name), 0o700))
			continue
		}
		content, err := io.ReadAll(archive)
		must(t, err)
		must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(h.Name)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, h.Name), content, 0o600))
	}
}

// lookAtOld opens a directory that has oldMails, and works with it.
func lookAtOld(t *testing.T, dir string) {
	t.Helper()
	s := openQueue(t, dir, Options{})
	version := int64(0)
	must(t, s.read(ctx, func(c *conn) (err error) {
		version, err = c.Number("PRAGMA user_version")
		return err
	}))
	if version != int64(len(queueMigrations)) {
		t.Errorf("the schema's version is %d after opening it, want %d", version, len(queueMigrations))
	}
	mails := oldMails()
	readAll(t, s, mails)
	m, err := s.Get(ctx, "old4")
	must(t, err)
	if h, ok := m.Recipients[1].Last(); !ok || m.Recipients[0].State != queue.Held || m.Recipients[1].State != queue.Failed || h.Outcome.Detail != "no" ||
		m.Message.Client != mails[4].Message.Client || !m.Message.ReceivedAt.Equal(oldTime) {
		t.Errorf("old4: %+v", m)
	}
	if mark, err := s.Mark(ctx, "gate"); err != nil || mark != "closed" {
		t.Errorf("the mark is %q, %v", mark, err)
	}
	claims := claimAll(t, s)
	if len(claims) != 8 || claims[0].Token.Mail != "old1" {
		t.Errorf("%d claims, the first %+v", len(claims), claims[0].Token)
	}
	settle(t, s, claims)
	must(t, s.Enqueue(ctx, testMails(4, 100)...))
	checkConsistent(t, s)
}
