package providertest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
)

// Acme returns a vendor that does not exist and does all things in its own way. Tests
// choose it to show that nothing outside a vendor's package depends on the vendor.
func Acme() provider.Vendor {
	return provider.Vendor{
		Name:         "acme",
		URL:          "https://api.acme.example",
		Path:         "/mails",
		RegisterPath: "/hooks",
		Settings:     func() provider.Settings { return new(acmeSettings) },
		Client: func(c provider.Connection) (provider.AccountClient, error) {
			return httpcall.New(httpcall.API{Header: acmeHeader, Classify: acmeOutcome}, c)
		},
		Events:    acmeEvents{},
		Registrar: func(c provider.Connection) provider.Registrar { return acmeRegistrar{c} },
		Sandbox:   func(provider.SandboxOptions) provider.Sandbox { return nil },
	}
}

// acmeSettings has a setting that no other vendor has.
type acmeSettings struct {
	Stream string `toml:"stream" default:"orders" doc:"The stream of mails that a mail is counted in."`
}

func (*acmeSettings) HeaderField() (name string, all bool) { return "", false }

func (s *acmeSettings) Check(attachments bool, problem func(setting, found, wrong string)) map[string]string {
	if attachments {
		problem("attachments", string(mail.SendAttachments), "and acme takes no attachments")
	}
	return map[string]string{"recipient": "the API itself"}
}

func (s *acmeSettings) Encode(m *mail.Mail) (provider.Body, error) {
	return acmeBody{m, s.Stream}, nil
}

type acmeBody struct {
	mail   *mail.Mail
	stream string
}

func (b acmeBody) document(to string) []byte {
	if b.Redirected() {
		to = b.mail.Redirect
	}
	doc, _ := json.Marshal(map[string]string{ // a map of strings has no error
		"recipient": to, "sender": b.mail.From.Email, "title": b.mail.Subject, "plain": b.mail.Text, "stream": b.stream,
	})
	return doc
}

func (b acmeBody) Len(to string) int64      { return int64(len(b.document(to))) }
func (b acmeBody) Open(to string) io.Reader { return bytes.NewReader(b.document(to)) }
func (b acmeBody) Redirected() bool         { return b.mail.Redirect != "" }

func acmeHeader(h http.Header, c provider.Connection, r provider.Request) {
	h.Set("X-Acme-Token", c.Key)
	h.Set("X-Acme-Request", r.IdempotencyKey)
}

func acmeOutcome(status int, header http.Header, body []byte, _ time.Time) relay.Outcome {
	var a struct{ Ticket, Why string }
	err := json.Unmarshal(body, &a)
	out := relay.Outcome{Status: status, Detail: a.Why}
	switch {
	case status == http.StatusAccepted && err == nil && a.Ticket != "":
		out.Kind, out.MessageID = relay.Accepted, a.Ticket
	case status == http.StatusAccepted:
		out.Kind, out.Cause = relay.Ambiguous, errors.New("the answer has no ticket")
	case status == http.StatusGone:
		out.Kind = relay.Suppressed
	case status == http.StatusConflict:
		out.Kind = relay.Refused
	case status == http.StatusRequestEntityTooLarge:
		out.Kind = relay.TooLarge
	case status == http.StatusUnauthorized:
		out.Kind, out.Cause = relay.Unauthorized, errors.New("acme refuses the token")
	case status == http.StatusTooManyRequests:
		out.Kind = relay.RateLimited
		out.RetryAfter, _ = time.ParseDuration(header.Get("X-Acme-Pause"))
	default:
		out.Kind, out.Cause = relay.Unavailable, fmt.Errorf("acme answered %d", status)
	}
	return out
}

// acmeEvents are forms: kind=went&id=1&to=bob@example.net&ticket=t1.
type acmeEvents struct{}

const acmeSignature = "X-Acme-Seal"

func acmeSign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (acmeEvents) Signed(secrets []string, header http.Header, body []byte) bool {
	return slices.ContainsFunc(secrets, func(secret string) bool {
		return secret != "" && hmac.Equal([]byte(acmeSign(secret, body)), []byte(header.Get(acmeSignature)))
	})
}

func (acmeEvents) HasSignature(header http.Header) bool { return header.Get(acmeSignature) != "" }

func (acmeEvents) Read(body []byte, received time.Time) (relay.Event, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("id") == "" {
		return relay.Event{}, errors.New("this is no event of acme's")
	}
	kind := form.Get("kind")
	words := []string{"gone", "later", "spam", "stop", "there", "seen", "click", "went"} // as in EventTypes
	if i := slices.Index(words, kind); i >= 0 {
		kind = relay.EventTypes()[i]
	}
	return relay.Event{ID: form.Get("id"), Type: kind, Email: form.Get("to"), MessageID: form.Get("ticket"), Received: received}, nil
}

func (acmeEvents) Sample(secret string, now time.Time) (http.Header, []byte) {
	body := fmt.Appendf(nil, "kind=hello&id=%d", now.UnixNano())
	return http.Header{acmeSignature: {acmeSign(secret, body)}}, body
}

type acmeRegistrar struct{ provider.Connection }

func (a acmeRegistrar) Register(ctx context.Context, r provider.Registration) (string, error) {
	body := strings.NewReader(strings.Join(append([]string{r.URL}, r.Events...), "\n"))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.Address(), body)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Acme-Token", a.Key)
	resp, text, err := httpcall.Once(req, a.ExtraCAs)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("acme answered %d", resp.StatusCode)
	}
	return string(text), nil
}
