package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	_ "github.com/emersion/go-message/charset" // decodes them all
	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-smtp"
)

// bare is a relay in a hundred lines, to compare with.
type bare struct {
	client *http.Client
	url    string
}

// serveBare serves at an address, with STARTTLS. The API is where the environment says.
func serveBare(address string) error {
	roots := x509.NewCertPool()
	if trusted, err := os.ReadFile(os.Getenv("BARE_CA")); err == nil {
		roots.AppendCertsFromPEM(trusted)
	}
	certificate, _, err := selfSigned()
	if err != nil {
		return err
	}
	b := &bare{
		client: &http.Client{Transport: &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256, TLSClientConfig: &tls.Config{RootCAs: roots}}},
		url:    os.Getenv("NEXUSPROMAIL_API_URL") + "/send",
	}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &bareSession{bare: b}, nil }))
	s.Addr, s.Domain, s.MaxMessageBytes = address, "bare", 25<<20
	s.MaxRecipients, s.TLSConfig = 1000, &tls.Config{Certificates: []tls.Certificate{certificate}}
	return s.ListenAndServe()
}

type bareSession struct {
	*bare
	from string
	to   []string
}

func (s *bareSession) Reset()        { s.from, s.to = "", nil }
func (s *bareSession) Logout() error { return nil }

func (s *bareSession) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *bareSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

// Data maps the mail and makes one call for each recipient.
func (s *bareSession) Data(r io.Reader) error {
	m, err := mail.CreateReader(r)
	if err != nil {
		return err
	}
	subject, _ := m.Header.Subject()
	body := map[string]any{"from": map[string]string{"email": s.from}, "subject": subject}
	for {
		part, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(part.Body)
		if err != nil {
			return err
		}
		if strings.HasPrefix(part.Header.Get("Content-Type"), "text/html") {
			body["html"] = string(text)
		} else {
			body["text"] = string(text)
		}
	}
	for _, to := range s.to {
		body["to"] = map[string]string{"email": to}
		if err := s.call(body); err != nil {
			return err
		}
	}
	return nil
}

func (s *bareSession) call(body map[string]any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, s.url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer k")
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API says %s", resp.Status)
	}
	return nil
}
