package webserver

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateOf returns settings with a certificate that is read again when its files change.
func certificateOf(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}, nil
}

// lookEvery is how often a certificate's files are checked for changes.
const lookEvery = time.Minute

// certificate is a certificate that is read again when its files change.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	changed time.Time // the later of the files' modification times
	looked  time.Time
}

func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read(c.modified())
}

// modified returns when the files were last modified. Files that are gone do not count.
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

// get returns the certificate for a connection. If a new one cannot be read, it logs
// that and returns the one before.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < lookEvery {
		return c.pair, nil
	}
	c.looked = time.Now()
	if changed := c.modified(); !changed.Equal(c.changed) {
		if err := c.read(changed); err != nil {
			c.log.Error("the new certificate cannot be read; the old one stays in use", "file", c.certFile, "cause", err)
		}
	}
	return c.pair, nil
}
