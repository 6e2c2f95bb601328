package sqlite

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// oldJournal is a data directory of the last version that kept mail in segments,
// after a loss of power: mail in rows, in segments, in files, and mail of which
// only the segments know. kept.json has all that was answered, with the state of
// each recipient.
const oldJournal = "testdata/journal.tar.gz"

type keptMail struct {
	ID, Where, SHA256 string
	Size              int
	Recipients        []string
}

func unpackJournal(t *testing.T) (dir string, all []keptMail) {
	t.Helper()
	dir = t.TempDir()
	unpack(t, oldJournal, dir)
	b, err := os.ReadFile(filepath.Join(dir, "kept.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &all))
	return dir, all
}

// readKept looks whether all that was answered is there, but for some.
func readKept(t *testing.T, s *Queue, all []keptMail, but ...string) {
	t.Helper()
	order := []string{}
	for _, k := range all {
		m, err := s.Get(ctx, k.ID)
		if err != nil {
			t.Fatalf("%s, which was in %s: %v", k.ID, k.Where, err)
		}
		order = append(order, k.ID)
		raw, err := readRaw(s, k.ID)
		if slices.Contains(but, k.ID) {
			if !errors.Is(err, queue.ErrDamaged) {
				t.Errorf("%s, whose body is lost: %v", k.ID, err)
			}
			continue
		}
		sum := sha256.Sum256(raw)
		if err != nil || hex.EncodeToString(sum[:]) != k.SHA256 || m.Size != int64(k.Size) {
			t.Errorf("%s, which was in %s: %d bytes, %v", k.ID, k.Where, len(raw), err)
		}
		var states []string
		for _, r := range m.Recipients {
			states = append(states, r.Addr+" "+r.State.String())
		}
		want := strings.ReplaceAll(strings.Join(k.Recipients, ", "), "sending", "waiting")
		if got := strings.Join(states, ", "); got != want {
			t.Errorf("%s: %s, want %s", k.ID, got, want)
		}
	}
	checkConsistent(t, s)
	entries, _, err := s.List(ctx, queue.Filter{Limit: stored.MaxList})
	must(t, err)
	var listed []string
	for _, e := range entries {
		if id := e.Mail.Message.ID; len(listed) == 0 || listed[len(listed)-1] != id {
			listed = append(listed, id)
		}
		if want := turnOf(e.Mail); turnOfStored(t, s, e.Mail.Message.ID) != want {
			t.Errorf("%s takes another turn than %q", e.Mail.Message.ID, want)
		}
	}
	if !slices.Equal(listed, order) {
		t.Errorf("there are, in order,\n%v, want\n%v", listed, order)
	}
}

func turnOfStored(t *testing.T, s *Queue, id string) string {
	t.Helper()
	turn := ""
	must(t, s.read(ctx, func(c *conn) error {
		r, err := c.One("SELECT turn FROM recipients WHERE mail = (SELECT seq FROM mails WHERE id = ?)", id)
		if r != nil {
			turn = r.Text(0)
		}
		return err
	}))
	return turn
}

func filesIn(t *testing.T, dir, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	must(t, err)
	return files
}

// TestSegmentsAreTaken: nothing of what was answered is lost with the segments,
// and nothing of them stays.
func TestSegmentsAreTaken(t *testing.T) {
	dir, all := unpackJournal(t)
	for range 2 {
		s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
		must(t, err)
		readKept(t, s, all)
		must(t, s.Close())
	}
	if left := filesIn(t, dir, "spool/segment-*"); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	// The part of a group that was never answered is kept apart.
	if left := filesIn(t, dir, "spool.unknown-*/*"); len(left) != 1 || filepath.Base(left[0]) != "segment-3" {
		t.Errorf("set aside: %v", left)
	}
	s := openQueue(t, dir, Options{Queue: queue.Options{ForgetSent: true}})
	more := testMails(3, 100)
	must(t, s.Enqueue(ctx, more...))
	readAll(t, s, more)
	_, err := s.Drop(ctx, queue.Filter{States: []queue.State{queue.Held, queue.Failed, queue.Waiting}})
	must(t, err)
	if left := filesIn(t, dir, "spool/*"); len(left) > 0 {
		t.Errorf("after all was dropped: %v", left)
	}
	checkConsistent(t, s)
}

// TestSegmentsAreDamaged: what of them cannot be read is the damage of single
// mails, and what cannot be read now is none.
func TestSegmentsAreDamaged(t *testing.T) {
	t.Run("a byte of a body", func(t *testing.T) {
		dir, all := unpackJournal(t)
		k := all[slices.IndexFunc(all, func(k keptMail) bool { return k.Where == "segment" && k.Size == 8000 })]
		name := filepath.Join(dir, "spool", "segment-1")
		b, err := os.ReadFile(name)
		must(t, err)
		at := bytes.Index(b, []byte(k.ID+"\r\n"+k.ID))
		writeAt(t, name, int64(at), []byte("y"))
		readKept(t, openQueue(t, dir, Options{}), all, k.ID)
	})
	t.Run("a file is gone", func(t *testing.T) {
		dir, all := unpackJournal(t)
		must(t, os.Remove(filepath.Join(dir, "spool", "segment-1")))
		var lost []string
		for _, k := range all[:slices.IndexFunc(all, func(k keptMail) bool { return k.Size == 6000 })] {
			if k.Where == "segment" {
				lost = append(lost, k.ID)
			}
		}
		readKept(t, openQueue(t, dir, Options{}), all, lost...)
	})
	t.Run("a file that cannot be opened", func(t *testing.T) {
		dir, all := unpackJournal(t)
		name := filepath.Join(dir, "spool", "segment-1")
		must(t, os.Rename(name, name+".away"))
		must(t, os.Symlink(name, name)) // a loop: ELOOP
		if _, err := OpenQueue(Options{Dir: dir, Log: quiet()}); !errors.Is(err, syscall.ELOOP) {
			t.Fatalf("Open: %v", err)
		}
		must(t, os.Rename(name+".away", name))
		readKept(t, openQueue(t, dir, Options{}), all)
	})
	t.Run("the counts are missing", func(t *testing.T) {
		dir, all := unpackJournal(t)
		c, err := db.Connect("file:"+filepath.Join(dir, QueueFile), "DELETE FROM counts")
		must(t, err)
		must(t, c.Close())
		readKept(t, openQueue(t, dir, Options{}), all)
	})
	t.Run("somebody else's", func(t *testing.T) {
		dir, all := unpackJournal(t)
		if _, err := OpenQueue(Options{Dir: dir, Log: quiet(), Existing: true}); !errors.Is(err, ErrOlder) {
			t.Fatalf("Open: %v", err)
		}
		readKept(t, openQueue(t, dir, Options{}), all)
	})
}

// TestPortionsAreWhole: of a portion of which a byte is missing or wrong, or
// that belongs elsewhere, nothing is taken, and of those before it all is.
func TestPortionsAreWhole(t *testing.T) {
	known := map[string]bool{}
	for range 30 {
		dir, all := unpackJournal(t)
		name := filepath.Join(dir, "spool", "segment-3")
		b, err := os.ReadFile(name)
		must(t, err)
		at := rand.IntN(len(b))
		if rand.IntN(2) == 0 {
			b[at] ^= 1 << rand.IntN(8)
		} else {
			b = b[:at]
		}
		must(t, os.WriteFile(name, b, 0o600))
		s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
		must(t, err)
		n := len(all)
		if _, err := s.Get(ctx, all[n-1].ID); err != nil {
			n -= 4 // the one whole portion in it
		}
		known[fmt.Sprint(n)] = true
		readKept(t, s, all[:n])
		must(t, s.Close())
	}
	if len(known) != 2 {
		t.Errorf("%v mails, want all at times, and all but four at others", known)
	}
	dir, all := unpackJournal(t) // and under another number
	must(t, os.Rename(filepath.Join(dir, "spool", "segment-3"), filepath.Join(dir, "spool", "segment-4")))
	readKept(t, openQueue(t, dir, Options{}), all[:len(all)-4])
}

// TestPowerLossWhileSegmentsAreTaken cuts the power at every write and sync while
// the mail moves.
func TestPowerLossWhileSegmentsAreTaken(t *testing.T) {
	disk := &faultDisk{}
	registerVFS("segments", disk)
	dir, all := unpackJournal(t)
	for _, name := range []string{QueueFile, QueueFile + "-wal"} {
		must(t, disk.Rewrite(filepath.Join(dir, name)))
	}
	before, begin := t.TempDir(), disk.Now()
	must(t, os.CopyFS(before, os.DirFS(dir)))
	removed := map[string]int{}
	s := openQueue(t, dir, Options{vfs: "segments", spool: removals{osFS{}, disk, removed}, rewrite: disk.Rewrite, tidyEvery: time.Hour})
	if len(removed) != 3 {
		t.Fatalf("%d segments went", len(removed))
	}
	readKept(t, s, all)
	chance := rand.New(rand.NewPCG(1, 2))
	for n := begin; n <= disk.Now(); n += 1 + rand.IntN(harness.Scaled(20, 1)) {
		after := t.TempDir()
		must(t, os.CopyFS(filepath.Join(after, "spool"), os.DirFS(filepath.Join(before, "spool"))))
		for name, at := range removed {
			if at <= n && chance.IntN(4) > 0 {
				must(t, os.Remove(filepath.Join(after, "spool", name)))
			}
		}
		must(t, disk.PowerLoss(n, after, chance))
		s, err := OpenQueue(Options{Dir: after, Log: quiet()})
		if err != nil {
			t.Fatalf("after %d events: %v", n, err)
		}
		readKept(t, s, all)
		must(t, s.Close())
		if t.Failed() {
			t.Fatalf("after %d of %d events", n, disk.Now())
		}
	}
}

// removals notes after which event a file went.
type removals struct {
	osFS
	disk *faultDisk
	at   map[string]int
}

func (r removals) Remove(name string) error {
	r.at[filepath.Base(name)] = r.disk.Now()
	return r.osFS.Remove(name)
}

func (r removals) Move(from, to string) error {
	r.at[filepath.Base(from)] = r.disk.Now()
	return r.osFS.Move(from, to)
}

// FuzzReadPortion: whatever is in a segment, a start takes a portion of it that is
// whole, or none.
func FuzzReadPortion(f *testing.F) {
	dir := f.TempDir()
	unpack(f, oldJournal, dir)
	whole, err := os.ReadFile(filepath.Join(dir, "spool", "segment-3"))
	if err != nil {
		f.Fatal(err)
	}
	if _, ok := readPortion(whole, 3, 0); !ok {
		f.Fatal("the seed is no portion")
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(portionMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := readPortion(b, 3, 0)
		if !ok {
			return
		}
		if offsetOf(p.end) > int64(len(b)) || segmentOf(p.end) != 3 {
			t.Fatalf("it ends at %d of %d", offsetOf(p.end), len(b))
		}
		for _, x := range p.parcels {
			if len(x.addressSums) != len(x.Recipients) || x.where() == bodyTable && checksum(x.Message.Raw) != x.bodySum {
				t.Fatalf("%+v", x)
			}
		}
	})
}
