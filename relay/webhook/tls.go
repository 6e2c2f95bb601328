package webhook

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookEvery is how often a certificate's file is looked at for a new one.
const lookEvery = time.Minute

// certificate is a certificate that is read again when its files change.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	changed time.Time // the later of the files' times
	looked  time.Time
}

func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read(c.modified())
}

// modified is when one of the files changed last; a file that is gone did not.
func (c *certificate) modified() time.Time {
	var last time.Time
	for _, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

func (c *certificate) read(changed time.Time) error {
	c.changed, c.looked = changed, time.Now()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.pair = &pair
	return nil
}

// get is the certificate for a connection. One that cannot be read is logged,
// and the one before it stays in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < lookEvery {
		return c.pair, nil
	}
	c.looked = time.Now()
	if changed := c.modified(); !changed.Equal(c.changed) {
		if err := c.read(changed); err != nil {
			c.log.Error("the webhook's new certificate is not used", "cause", err)
		}
	}
	return c.pair, nil
}
