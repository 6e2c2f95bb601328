package nexuspromail

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
)

// registerTime bounds a call that registers an endpoint.
const registerTime = 15 * time.Second

// Registrar registers endpoints for events.
type Registrar struct{ provider.Connection }

var _ provider.Registrar = Registrar{}

// Register implements provider.Registrar.
func (p Registrar) Register(ctx context.Context, r provider.Registration) (string, error) {
	body, err := json.Marshal(struct {
		URL    string   `json:"url"`
		Events []string `json:"events"`
	}{r.URL, r.Events})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, registerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Address(), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+p.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, text, err := httpcall.Once(req, p.ExtraCAs)
	if err != nil {
		return "", fmt.Errorf("the API cannot be reached: %w", err)
	}
	var answer struct{ Secret, Error, Message string }
	jerr := json.Unmarshal(text, &answer)
	switch {
	case resp.StatusCode/100 != 2:
		why := cmp.Or(answer.Message, answer.Error, http.StatusText(resp.StatusCode))
		return "", fmt.Errorf("the API refuses the registration: %d %s", resp.StatusCode, printable(why, 200))
	case jerr != nil || answer.Secret == "":
		return "", errors.New("the API's answer has no secret in it; is webhook.register_path right?")
	case strings.IndexFunc(answer.Secret, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 || len(answer.Secret) > 4096:
		return "", errors.New("the API's answer has a secret that cannot be one")
	}
	return answer.Secret, nil
}
