package smtpd

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"sync"
	"time"
)

// TLSMode is when a listener speaks TLS.
type TLSMode int

// NoTLS never does, StartTLS when the client asks for it with STARTTLS, and
// ImplicitTLS from the first octet on (RFC 8314).
const (
	NoTLS TLSMode = iota
	StartTLS
	ImplicitTLS
)

// TLS is how a listener encrypts.
type TLS struct {
	Mode       TLSMode
	MinVersion uint16 // such as tls.VersionTLS10, for devices that know no better; 0 is TLS 1.2

	// The certificate and its key, in PEM. They are read again when one of
	// the files changes.
	CertFile, KeyFile string

	// SelfSigned makes a certificate at each start instead, kept in memory
	// only. Clients cannot check it: it keeps out who can only listen.
	SelfSigned bool
}

// config is nil for no TLS. An error names the file that is wrong.
func (t TLS) config(hostname string, log *slog.Logger) (*tls.Config, error) {
	if t.Mode == NoTLS {
		return nil, nil
	}
	c := &tls.Config{MinVersion: cmp.Or(t.MinVersion, tls.VersionTLS12)} //nolint:gosec // the operator's choice
	if c.MinVersion < tls.VersionTLS12 {
		c.CipherSuites = oldSuites()
	}
	if t.SelfSigned {
		cert, err := selfSigned(hostname, c.MinVersion < tls.VersionTLS12)
		if err != nil {
			return nil, fmt.Errorf("cannot make a certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{*cert}
		return c, nil
	}
	files := &certificate{certFile: t.CertFile, keyFile: t.KeyFile, log: log}
	if err := files.load(); err != nil {
		return nil, err
	}
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.current(time.Now()), nil }
	return c, nil
}

// oldSuites adds what devices of TLS 1.0 times often have alone: a key
// exchange without forward secrecy, which Go no longer has by default.
func oldSuites() []uint16 {
	ids := []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA}
	for _, suite := range tls.CipherSuites() {
		ids = append(ids, suite.ID)
	}
	return ids
}

// lookEvery is how often the files of a certificate are looked at, at most.
const lookEvery = time.Second

// A certificate is kept in files, which are read again when they change: one
// that is renewed every few weeks must not need a restart.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	state  fileState
	looked time.Time
}

// fileState tells one state of the two files from another.
type fileState struct {
	cert, key         time.Time
	certSize, keySize int64
}

func (c *certificate) stat() (fileState, error) {
	cert, err := os.Stat(c.certFile)
	if err != nil {
		return fileState{}, err
	}
	key, err := os.Stat(c.keyFile)
	if err != nil {
		return fileState{}, err
	}
	return fileState{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}

// load reads the files. The state is taken before the content, so that a
// change in between is seen the next time.
func (c *certificate) load() error {
	state, err := c.stat()
	if err != nil {
		return err
	}
	c.state = state
	return c.read()
}

func (c *certificate) read() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("the certificate in %s with the key in %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair = &pair
	return nil
}

// current is the certificate as it is in the files. While these are not good,
// as in the middle of a renewal, it is the last one that was.
func (c *certificate) current(now time.Time) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if since := now.Sub(c.looked); since >= 0 && since < lookEvery {
		return c.pair
	}
	c.looked = now
	state, err := c.stat() // of missing files the zero one
	if state == c.state {
		return c.pair
	}
	if err == nil {
		err = c.read()
	}
	c.state = state // whether good or not: it is told once, not to each client
	if err != nil {
		c.log.Error("the certificate cannot be read again; the old one stays", "error", err)
	} else {
		c.log.Info("certificate read again", "file", c.certFile)
	}
	return c.pair
}

// selfSignedTime is long: nobody checks it, and nobody would renew it.
const selfSignedTime = 10 * 365 * 24 * time.Hour

// selfSigned makes a certificate. Old clients know RSA only.
func selfSigned(hostname string, old bool) (*tls.Certificate, error) {
	pair := &tls.Certificate{}
	var public any
	if old {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		pair.PrivateKey, public = key, key.Public()
	} else {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		pair.PrivateKey, public = key, key.Public()
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: hostname},
		DNSNames:     []string{hostname},
		NotBefore:    time.Now().Add(-time.Hour), // clocks differ
		NotAfter:     time.Now().Add(selfSignedTime),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, pair.PrivateKey)
	if err != nil {
		return nil, err
	}
	pair.Certificate = [][]byte{der}
	return pair, nil
}
