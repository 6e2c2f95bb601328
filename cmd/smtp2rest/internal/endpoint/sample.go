package endpoint

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/webhook"
)

// Answer is what an endpoint said to an event.
type Answer struct {
	Code   int
	Status string
	Taken  bool
	Took   time.Duration
}

// SendSample sends an event of the type "test", which changes nothing.
func SendSample(ctx context.Context, target, secret, caFile string) (Answer, error) {
	now := time.Now().UTC()
	body := fmt.Appendf(nil, `{"id":"evt_test_%d","type":"test","created_at":%q,"data":{"email":"nobody@example.com","timestamp":%[2]q}}`, now.UnixNano(), now.Format(time.RFC3339))
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(webhook.SignatureHeader, webhook.Sign(secret, body))
	start := time.Now()
	resp, text, err := exchange(req, caFile)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", target, err)
	}
	return Answer{
		Code: resp.StatusCode, Status: resp.Status, Took: time.Since(start),
		Taken: resp.StatusCode == http.StatusOK && len(text) == 0,
	}, nil
}
