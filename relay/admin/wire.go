package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Every call is POST /v1/NAME with a JSON object and is answered by one, an
// answer. Only raw answers with the mail itself, and says in a trailer whether
// that was all of it: the damage of a large mail shows at its end.
const (
	prefix     = "/v1/"
	maxRequest = 1 << 20 // bytes of a request, for a part of an import

	rawType    = "message/rfc822"
	endTrailer = "Smtp2rest-End" // of raw: endWhole, or the code of an error
	endWhole   = "whole"
)

// answer has both a result and an error when some of the work was done.
type answer[T any] struct {
	Result T          `json:"result"`
	Error  *wireError `json:"error,omitempty"`
}

// wireError is an error on the wire. It is an error of the same kind, with the
// same words, at the other end.
type wireError struct {
	Code string   `json:"code"`
	Text string   `json:"text"`
	IDs  []string `json:"ids,omitempty"`  // of an AmbiguousError, as
	More bool     `json:"more,omitempty"` // these two
	ID   string   `json:"id,omitempty"`
}

// internal is the code of an error that is none of those below.
const internal = "internal"

type code struct {
	name   string
	status int
	err    error
}

// codes are the errors that a client can tell apart.
func codes() []code {
	return []code{
		{"not_found", http.StatusNotFound, queue.ErrNotFound},
		{"damaged", http.StatusUnprocessableEntity, queue.ErrDamaged},
		{"full", http.StatusInsufficientStorage, queue.ErrFull},
		{"stale", http.StatusConflict, queue.ErrStale},
		{"closed", http.StatusServiceUnavailable, queue.ErrClosed},
		{"nothing_selected", http.StatusBadRequest, ErrNothingSelected},
		{"bad_request", http.StatusBadRequest, ErrBadRequest},
		{"not_taken", http.StatusUnprocessableEntity, ErrNotTaken},
		{"not_running", http.StatusConflict, ErrNotRunning},
		{"no_queue", http.StatusConflict, ErrNoQueue},
		{"ambiguous", http.StatusConflict, ErrAmbiguous},
		{"not_suppressed", http.StatusNotFound, ErrNotSuppressed},
	}
}

// toWire returns nil and 200 for no error.
func toWire(err error) (*wireError, int) {
	if err == nil {
		return nil, http.StatusOK
	}
	w := &wireError{Code: internal, Text: text(err.Error())}
	status := http.StatusInternalServerError
	for _, c := range codes() {
		if errors.Is(err, c.err) {
			w.Code, status = c.name, c.status
			break
		}
	}
	var ambiguous *AmbiguousError
	if errors.As(err, &ambiguous) {
		w.ID, w.IDs, w.More = ambiguous.Prefix, ambiguous.IDs, ambiguous.More
	}
	return w, status
}

// err is the error that w was made from, as far as it can be told from others.
func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	if w.Code == "ambiguous" && len(w.IDs) > 0 {
		return &AmbiguousError{Prefix: w.ID, IDs: w.IDs, More: w.More}
	}
	for _, c := range codes() {
		if c.name == w.Code {
			return &saying{w.Text, c.err}
		}
	}
	return &saying{w.Text, nil}
}

// saying says something of its own and is another error all the same.
type saying struct {
	text string
	is   error
}

func (e *saying) Error() string { return e.text }
func (e *saying) Unwrap() error { return e.is }

// decodeRequest refuses fields it does not know: a newer command's filter must
// not be widened by an older daemon that leaves out a part of it.
func decodeRequest(w http.ResponseWriter, r *http.Request, into any) error {
	// All of it is read because net/http watches for a client that hangs up
	// only after the body's end.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if d.More() {
		return fmt.Errorf("%w: there is something after the JSON object", ErrBadRequest)
	}
	return nil
}

// named is the request of get and raw.
type named struct {
	ID string `json:"id"`
}

// changed is the result of what changes recipients.
type changed struct {
	Recipients int `json:"recipients"`
}
