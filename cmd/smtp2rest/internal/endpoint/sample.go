// Package endpoint speaks for the endpoint of the provider's events: it keeps the
// secret that they are signed with, and sends the endpoint an event as the
// provider would. relay/webhook is the endpoint itself.
package endpoint

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
)

// callTime bounds a call.
const callTime = 15 * time.Second

// Answer is what an endpoint said to an event.
type Answer struct {
	Code   int
	Status string
	Taken  bool
	Took   time.Duration
}

// SendSample sends an event that changes nothing.
func SendSample(ctx context.Context, events provider.Events, target, secret string, extraCAs []byte) (Answer, error) {
	header, body := events.Sample(secret, time.Now())
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header = header
	start := time.Now()
	resp, text, err := httpcall.Once(req, extraCAs)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", target, err)
	}
	return Answer{
		Code: resp.StatusCode, Status: resp.Status, Took: time.Since(start),
		Taken: resp.StatusCode == http.StatusOK && len(text) == 0,
	}, nil
}
