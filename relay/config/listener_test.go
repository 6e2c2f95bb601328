package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// pair is a certificate that ends at a time, and its key.
func pair(t *testing.T, end time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func TestListenerTLS(t *testing.T) {
	for _, tt := range []struct {
		end     time.Time
		warning string
	}{
		{time.Now().Add(time.Hour), ""},
		{time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC), "listener: the certificate in /etc/c/cert.pem ended on 2020-01-02"},
	} {
		cert, key := pair(t, tt.end)
		src := file("", env{})
		text := "[[listener]]\ntls = \"starttls\"\ncert_file = \"c/cert.pem\"\nkey_file = \"/k/key.pem\"\nmin_tls = \"1.0\"\n"
		src.Path = "/etc/smtp2rest.toml"
		src.ReadFile = func(path string) ([]byte, error) {
			return map[string][]byte{"/etc/smtp2rest.toml": []byte(text), "/etc/c/cert.pem": cert, "/k/key.pem": key}[path], nil
		}
		cfg := load(t, src)
		l := cfg.Listeners[0]
		if l.TLS != StartTLS || l.CertFile != "/etc/c/cert.pem" || l.KeyFile != "/k/key.pem" || l.MinTLS != tls.VersionTLS10 || l.SelfSigned {
			t.Errorf("%+v", l)
		}
		if got := strings.Join(cfg.Warnings, "\n"); got != tt.warning {
			t.Errorf("warnings: %q, want %q", got, tt.warning)
		}
	}
}
