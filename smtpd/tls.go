package smtpd

import (
	"crypto"
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
type TLSMode string

// NoTLS never does, StartTLS when the client asks for it with STARTTLS, and
// ImplicitTLS from the first octet on (RFC 8314).
const (
	NoTLS       TLSMode = "none"
	StartTLS    TLSMode = "starttls"
	ImplicitTLS TLSMode = "implicit"
)

// TLS is how a listener encrypts; the zero TLS is NoTLS.
type TLS struct {
	Mode     TLSMode `toml:"tls" default:"none" words:"none starttls implicit" doc:"\"none\"; \"starttls\" encrypts when the client asks for it; \"implicit\" encrypts from the first byte on, as is usual on port 465."`
	CertFile string  `toml:"cert_file" check:"file" doc:"With tls: the certificate and its intermediate certificates, in PEM. The file is read again when it changes. A relative path starts at the directory of this file."`
	KeyFile  string  `toml:"key_file" check:"file" doc:"With tls: the certificate's key, in PEM."`
	// The certificate is kept in memory only.
	SelfSigned bool `toml:"self_signed" doc:"With tls: makes a certificate at each start, instead of the files. Clients cannot check it, so it is for networks in which nobody can pretend to be this machine."`
	// As crypto/tls has it; 0 is its own default, TLS 1.2.
	MinVersion uint16 `toml:"min_tls" default:"1.2" doc:"With tls: the lowest version, from \"1.0\" to \"1.3\". Below 1.2 is only for old devices: it also allows the weak key exchange that they need."`
}

// On reports whether there is TLS at any time.
func (t TLS) On() bool { return t.Mode == StartTLS || t.Mode == ImplicitTLS }

// config returns nil for no TLS. Its error names the file that is wrong.
func (t TLS) config(hostname string, log *slog.Logger) (*tls.Config, error) {
	if !t.On() {
		return nil, nil
	}
	c := &tls.Config{MinVersion: t.MinVersion} //nolint:gosec // the operator's choice
	old := t.MinVersion != 0 && t.MinVersion < tls.VersionTLS12
	if old {
		c.CipherSuites = oldSuites()
	}
	if t.SelfSigned {
		cert, err := selfSigned(hostname, old)
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

// oldSuites returns Go's cipher suites and those that many devices of TLS 1.0 times
// have alone: a key exchange without forward secrecy, which Go has no longer by default.
func oldSuites() []uint16 {
	ids := []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA}
	for _, suite := range tls.CipherSuites() {
		ids = append(ids, suite.ID)
	}
	return ids
}

// lookEvery is how often, at most, the files of a certificate are checked for changes.
const lookEvery = time.Second

// A certificate is read from files, and again when they change: one that is renewed
// every few weeks must not need a restart.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	state  fileState
	looked time.Time
}

// fileState tells whether the two files have changed.
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

// current returns the certificate in the files. While those are not usable, as in the
// middle of a renewal, it returns the last one that was.
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
	c.state = state // usable or not: a failure is logged once, not for each client
	if err != nil {
		c.log.Error("the certificate cannot be read again; the old one stays", "error", err)
	} else {
		c.log.Info("certificate read again", "file", c.certFile)
	}
	return c.pair
}

// selfSignedTime is long: nobody checks it, and nobody would renew it.
const selfSignedTime = 10 * 365 * 24 * time.Hour

// selfSigned makes a certificate. Old clients know only RSA.
func selfSigned(hostname string, old bool) (*tls.Certificate, error) {
	var key crypto.Signer
	var err error
	if old {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, err
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
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
