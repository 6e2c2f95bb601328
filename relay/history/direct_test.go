package history

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Dropping a great many mails of a stopped relay waits for few writes.
func TestDirectWritesManyAtATime(t *testing.T) {
	store := &fakeStore{}
	d := &Direct{Store: store, Log: slog.New(slog.DiscardHandler)}
	const mails = 2*atOnce + 1
	for i := range mails {
		d.Note(OperatorDropped{ID: fmt.Sprint(i), To: "bob@example.net", At: time.Now()})
	}
	if n := store.mails(); n != mails-1 {
		t.Errorf("%d of %d are written before the end", n, mails)
	}
	d.Flush()
	d.Flush()
	if n, writes := store.mails(), len(store.writes); n != mails || writes != 3 {
		t.Errorf("%d mails in %d writes, want %d in 3", n, writes, mails)
	}
}

func TestDirectSaysWhatItCannotWrite(t *testing.T) {
	var log strings.Builder
	store := &fakeStore{err: errors.New("no disk")}
	d := &Direct{Store: store, Log: slog.New(slog.NewTextHandler(&log, nil))}
	d.Note(OperatorDropped{ID: "a", To: "bob@example.net", At: time.Now()})
	d.Flush()
	if !strings.Contains(log.String(), "no disk") {
		t.Errorf("the log says %q", log.String())
	}
}
