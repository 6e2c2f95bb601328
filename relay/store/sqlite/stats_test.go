package sqlite

import (
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// TestOldestWhileARetryCommits: whoever asks for the oldest mail just before a
// Retry of an older one is durable does not spoil what later calls are told.
func TestOldestWhileARetryCommits(t *testing.T) {
	disk := &faultDisk{}
	registerVFS("oldest", disk)
	s := openQueue(t, t.TempDir(), Options{vfs: "oldest", tidyEvery: time.Hour})
	old, young := testMail(10), testMail(10)
	old.Message.ReceivedAt = young.Message.ReceivedAt.Add(-time.Hour)
	must(t, s.Enqueue(ctx, old))
	must(t, s.Settle(ctx, queue.Settlement{Token: claimAll(t, s)[0].Token, Result: queue.GaveUp, At: time.Now()}))
	must(t, s.Enqueue(ctx, young))
	committing, goOn := make(chan struct{}, 100), make(chan struct{})
	disk.Fail(func(op diskOp, _ string) int32 {
		committing <- struct{}{}
		<-goOn
		return 0
	})
	retried := make(chan error, 1)
	go func() {
		_, err := s.Retry(ctx, queue.Filter{States: []queue.State{queue.Failed}}, time.Now())
		retried <- err
	}()
	<-committing
	oldest := func() time.Time {
		st, err := s.Stats(ctx)
		must(t, err)
		return st.Oldest
	}
	if got := oldest(); !got.Equal(stored.Time(stored.Millis(young.Message.ReceivedAt))) {
		t.Errorf("before the Retry took place the oldest is of %v", got)
	}
	close(goOn)
	must(t, <-retried)
	if got := oldest(); !got.Equal(stored.Time(stored.Millis(old.Message.ReceivedAt))) {
		t.Errorf("the oldest is of %v, want %v", got, old.Message.ReceivedAt)
	}
}
