// Package endpoint speaks for the endpoint of the provider's events: it registers
// one, keeps the secret that comes of it, and sends one an event as the provider
// would. relay/webhook is the endpoint itself.
package endpoint

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// callTime bounds a call.
const callTime = 15 * time.Second

// Provider is where endpoints are registered.
type Provider struct {
	URL    string // of the call that registers
	Key    string
	CAFile string // PEM with certificates besides the system's; may be ""
}

// Registration is what the provider is asked.
type Registration struct {
	URL    string   `json:"url"`
	Events []string `json:"events"`
}

// Register registers an address and returns the secret that its events are
// signed with.
func (p Provider) Register(ctx context.Context, r Registration) (string, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+p.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, text, err := exchange(req, p.CAFile)
	if err != nil {
		return "", fmt.Errorf("the API cannot be reached: %w", err)
	}
	var answer struct{ Secret, Error, Message string }
	jerr := json.Unmarshal(text, &answer)
	switch {
	case resp.StatusCode/100 != 2:
		why := cmp.Or(answer.Message, answer.Error, http.StatusText(resp.StatusCode))
		return "", fmt.Errorf("the API refuses to register it: %d %s", resp.StatusCode, short(why))
	case jerr != nil || answer.Secret == "":
		return "", errors.New("the API's answer has no secret in it; is webhook.register_path right?")
	case strings.IndexFunc(answer.Secret, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 || len(answer.Secret) > 4096:
		return "", errors.New("the API's answer has a secret that cannot be one")
	}
	return answer.Secret, nil
}

// short is what a stranger said, fit for a line on a terminal.
func short(s string) string {
	const most = 200
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// exchange makes one request and reads what comes back, of which nothing real
// is long.
func exchange(req *http.Request, caFile string) (*http.Response, []byte, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	if err := trust(transport, caFile); err != nil {
		return nil, nil, err
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // it says POST and the address once more
			err = e.Err
		}
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp, text, err
}
