package archive

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
)

func TestCopy(t *testing.T) {
	id := relay.NewID(time.Now())
	m := &relay.Message{ID: id, From: "shop@x", Recipients: []string{"bob@example.net", "eve@example.net"}, Raw: []byte("mail"), Account: "shop",
		Aliases: map[string]string{"bob@example.net": "all@x"}}
	c := Copy(m, "archive@example.net")
	if c.ID == m.ID || len(c.ID) != len(m.ID) || c.Recipients[0] != "archive@example.net" || c.Aliases != nil || c.Account != "shop" ||
		c.Client != (relay.Client{CopyOf: id, CopyFor: "bob@example.net, eve@example.net"}) || string(c.Raw) != "mail" {
		t.Errorf("the copy is %+v", c)
	}
	if m.Client.CopyOf != "" || len(m.Recipients) != 2 {
		t.Errorf("the mail was changed: %+v", m)
	}
	again := *m
	again.ID = relay.ContinueID(id, relay.NewID(time.Now()))
	if other := Copy(&again, "archive@example.net"); other.ID != c.ID || other.Client.CopyOf != id {
		t.Errorf("the copy of a mail that comes again is %+v", other)
	}
	m.Recipients = nil
	for i := range 1000 {
		m.Recipients = append(m.Recipients, fmt.Sprintf("u%d@example.net", i))
	}
	if got := Copy(m, "a@b").Client.CopyFor; !strings.HasSuffix(got, "u19@example.net and 980 more") {
		t.Errorf("it names %s", got)
	}
}

func TestTally(t *testing.T) {
	tally, now := NewTally(prometheus.NewRegistry()), time.Now()
	tally.Count(Queued, now)
	if n, _ := tally.Missed(); n != 0 {
		t.Errorf("%d are missing", n)
	}
	tally.Count(Lost, now)
	tally.Count(Failed, now.Add(time.Hour))
	if n, at := tally.Missed(); n != 2 || !at.Equal(now.Add(time.Hour)) {
		t.Errorf("%d are missing, %v", n, at)
	}
}
