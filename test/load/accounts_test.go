//go:build linux

package load

import (
	"context"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// besideOthers is a relay with a default account that is well and two further ones, "one"
// and "two", whose keys are in files of these names.
func besideOthers(t *testing.T, api string, keys map[string]string) (address string) {
	t.Helper()
	dir := t.TempDir()
	conf := "[api]\nconcurrency = 32\n[[listener]]\naddress = \"127.0.0.1:0\"\n"
	for name, key := range keys {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		conf += fmt.Sprintf("[[account]]\nname = %q\nemail = \"hello@%[1]s.example\"\nkey_file = %q\n", name, filepath.Join(dir, name))
	}
	p := harness.Launch(t, harness.Environ(t, "NEXUSPROMAIL_API_URL="+api, "NEXUSPROMAIL_API_KEY=key-of-healthy", "FROM_EMAIL=hello@healthy.example"),
		"serve", "--config", harness.ConfigFile(t, conf))
	return p.Await(p.Err, `listening.*address=(127\.0\.0\.1:\d+)`)
}

// smtpClient hands small mails over, one after another.
type smtpClient struct{ text *textproto.Conn }

func dialSMTP(address string) (*smtpClient, error) {
	conn, err := net.DialTimeout("tcp", address, harness.Patience)
	if err != nil {
		return nil, err
	}
	c := &smtpClient{textproto.NewConn(conn)}
	if _, _, err = c.text.ReadResponse(220); err == nil {
		_, err = c.say(250, "EHLO client.example")
	}
	return c, err
}

func (c *smtpClient) say(want int, line string) (string, error) {
	if err := c.text.PrintfLine("%s", line); err != nil {
		return "", err
	}
	_, reply, err := c.text.ReadResponse(want)
	return reply, err
}

// send returns the reply to a mail from a domain.
func (c *smtpClient) send(domain string) (string, error) {
	for _, line := range []string{"MAIL FROM:<app@" + domain + ">", "RCPT TO:<bob@example.net>"} {
		if _, err := c.say(250, line); err != nil {
			return "", err
		}
	}
	if _, err := c.say(354, "DATA"); err != nil {
		return "", err
	}
	return c.say(250, "From: <app@"+domain+">\r\nSubject: Your order\r\n\r\nIt is on its way.\r\n.")
}

const (
	healthyClients = 8
	healthyMails   = 40 // of each client in a phase
	otherClients   = 2  // for each of the other accounts
	otherPause     = 100 * time.Millisecond
)

// phase is what the mail of the healthy account took.
type phase struct {
	rate     float64 // mails a second
	p50, p99 time.Duration
}

// measure has clients of the healthy account send at full speed, beside others that send
// from these domains at a steady pace.
func measure(t *testing.T, address string, beside ...string) phase {
	t.Helper()
	over, stop := context.WithCancel(t.Context())
	var others, clients sync.WaitGroup
	for _, domain := range beside {
		for range otherClients {
			others.Go(func() {
				c, err := dialSMTP(address)
				for err == nil && over.Err() == nil {
					_, err = c.send(domain)
					select {
					case <-over.Done():
					case <-time.After(otherPause):
					}
				}
				if err != nil {
					t.Errorf("mail from %s: %v", domain, err)
					return
				}
				_ = c.text.Close()
			})
		}
	}
	var mu sync.Mutex
	var took []time.Duration
	began := time.Now()
	for range healthyClients {
		clients.Go(func() {
			c, err := dialSMTP(address)
			for n := 0; n < healthyMails && err == nil; n++ {
				handed := time.Now()
				var reply string
				reply, err = c.send("healthy.example")
				if !strings.Contains(reply, "accepted") {
					t.Errorf("mail of the healthy account: %q", reply)
				}
				mu.Lock()
				took = append(took, time.Since(handed))
				mu.Unlock()
			}
			if err != nil {
				t.Errorf("mail of the healthy account: %v", err)
				return
			}
			_ = c.text.Close()
		})
	}
	clients.Wait()
	all := time.Since(began)
	stop()
	others.Wait()
	if len(took) == 0 {
		t.FailNow()
	}
	slices.Sort(took)
	return phase{float64(len(took)) / all.Seconds(), took[len(took)/2], took[len(took)*99/100]}
}

// middle are the medians of the phases' figures.
func middle(all []phase) phase {
	of := func(value func(phase) float64) float64 {
		var values []float64
		for _, p := range all {
			values = append(values, value(p))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return phase{of(func(p phase) float64 { return p.rate }),
		time.Duration(of(func(p phase) float64 { return float64(p.p50) })), time.Duration(of(func(p phase) float64 { return float64(p.p99) }))}
}

// TestAHealthyAccountBesideOthers measures the mail of one account over real sockets:
// alone, beside two accounts that are well, and beside one that is over its quota and one
// with a wrong key, which the same clients send the same mail. What the second differs
// from the first by is the machine's share that any mail takes; what the third differs
// from the second by is what the accounts' trouble costs, and that must be nothing.
// The phases alternate, because the machine may be busy. SMTP2REST_MEASURE=1 takes 15 rounds.
func TestAHealthyAccountBesideOthers(t *testing.T) {
	harness.OnlyAll(t, "it takes a minute")
	rounds := 3
	if os.Getenv("SMTP2REST_MEASURE") != "" {
		rounds = 15
	}
	const latency = 20 * time.Millisecond
	box := sandbox.New(sandbox.Options{Key: "key-of-healthy", Latency: latency, Keep: -1, Accounts: map[string]sandbox.Options{
		"one": {Key: "key-of-one", Latency: latency}, "two": {Key: "key-of-two", Latency: latency},
		"over": {Key: "key-of-over", Latency: latency, Rate: 0.1, Burst: 1},
	}})
	if err := box.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Stop(context.Background()) })
	well := besideOthers(t, box.URL(), map[string]string{"one": "key-of-one", "two": "key-of-two"})
	ill := besideOthers(t, box.URL(), map[string]string{"one": "key-of-over", "two": "no-such-key"})
	others := []string{"one.example", "two.example"}
	measure(t, well, others...)
	measure(t, ill, others...)
	var alone, besideWell, besideIll []phase
	for range rounds {
		alone = append(alone, measure(t, well))
		besideWell = append(besideWell, measure(t, well, others...))
		besideIll = append(besideIll, measure(t, ill, others...))
	}
	a, w, i := middle(alone), middle(besideWell), middle(besideIll)
	for name, p := range map[string]phase{"alone": a, "beside two that are well": w, "beside one over quota and one with a wrong key": i} {
		t.Logf("%s: %.0f mails/s, p50 %v, p99 %v", name, p.rate, p.p50.Round(100*time.Microsecond), p.p99.Round(100*time.Microsecond))
	}
	t.Logf("with trouble, of without: mails/s %.2f, p50 %.2f, p99 %.2f; of alone: mails/s %.2f, p50 %.2f, p99 %.2f; medians of %d rounds",
		i.rate/w.rate, float64(i.p50)/float64(w.p50), float64(i.p99)/float64(w.p99),
		i.rate/a.rate, float64(i.p50)/float64(a.p50), float64(i.p99)/float64(a.p99), rounds)
	if i.p50 > 2*w.p50 { // the others say more of the machine: what is queued is written to its disk
		t.Error("the trouble of other accounts is felt")
	}
	if n := box.Account("over").Stats().Accepted; n > 100 {
		t.Errorf("%d mails got through the account that is over its quota", n)
	}
}
