package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Every call is POST /v1/NAME with a JSON object. The answer is a JSON object, too.
// Only raw answers with the mail itself. Its trailer says whether the mail is
// complete, because the damage of a large mail shows at its end.
const (
	prefix     = "/v1/"
	maxRequest = 1 << 20 // bytes of a request; a part of an import is the largest

	rawType    = "message/rfc822"
	endTrailer = "Smtp2rest-End" // of raw: endWhole, or the code of an error
	endWhole   = "whole"
)

// answer has a result and an error at once when only a part of the work was done.
type answer[T any] struct {
	Result T          `json:"result"`
	Error  *wireError `json:"error,omitempty"`
}

// wireError is an error in JSON. The client turns it into an error of the same kind
// with the same text.
type wireError struct {
	Code string   `json:"code"`
	Text string   `json:"text"`
	IDs  []string `json:"ids,omitempty"`  // of an AmbiguousError, as
	More bool     `json:"more,omitempty"` // these two
	ID   string   `json:"id,omitempty"`
}

// internal is the code of all other errors.
const internal = "internal"

type code struct {
	name   string
	status int
	err    error
}

// codes returns the errors that a client can tell apart.
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

// err returns the error that w was made from, or nil.
func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	if w.Code == "ambiguous" && len(w.IDs) > 0 {
		return &AmbiguousError{Prefix: w.ID, IDs: w.IDs, More: w.More}
	}
	for _, c := range codes() {
		if c.name == w.Code {
			return &worded{w.Text, c.err}
		}
	}
	return errors.New(w.Text)
}

// worded is an error with another text.
type worded struct {
	text string
	err  error
}

func (e *worded) Error() string { return e.text }
func (e *worded) Unwrap() error { return e.err }

// decodeRequest refuses fields that it does not know. Otherwise an older daemon would
// ignore a part of a newer command's filter, and change more than was asked for.
func decodeRequest(w http.ResponseWriter, r *http.Request, into any) error {
	// net/http notices a client that hangs up only after the body has been read.
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

// named is the request for one mail or one address.
type named struct {
	ID string `json:"id"`
}

// reassigning is the request that mails get another account.
type reassigning struct {
	Filter Filter `json:"filter"`
	To     string `json:"to"`
}

// changed is the result of a change.
type changed struct {
	Recipients int `json:"recipients"`
}

// handleAdmin passes calls on to an Admin. Client makes them.
func handleAdmin(mux *http.ServeMux, a Admin) {
	handle(mux, "status", func(ctx context.Context, _ struct{}) (Status, error) { return a.Status(ctx) })
	handle(mux, "list", a.List)
	handle(mux, "get", func(ctx context.Context, in named) (Mail, error) { return a.Get(ctx, in.ID) })
	handle(mux, "hold", counting(a.Hold))
	handle(mux, "release", counting(a.Release))
	handle(mux, "retry", counting(a.Retry))
	handle(mux, "drop", counting(a.Drop))
	handle(mux, "reassign", func(ctx context.Context, in reassigning) (changed, error) {
		n, err := a.Reassign(ctx, in.Filter, in.To)
		return changed{n}, err
	})
	handle(mux, "flush", func(ctx context.Context, _ struct{}) (changed, error) {
		n, err := a.Flush(ctx)
		return changed{n}, err
	})
	handle(mux, "reload", func(ctx context.Context, _ struct{}) (Reload, error) { return a.Reload(ctx) })
	mux.HandleFunc("POST "+prefix+"raw", func(w http.ResponseWriter, r *http.Request) { serveRaw(w, r, a) })
}

// handleHistory passes calls on to a History.
func handleHistory(mux *http.ServeMux, h History) {
	handle(mux, "history/find", h.Find)
	handle(mux, "history/trace", h.Trace)
	handle(mux, "history/forget", h.Forget)
}

func counting(f func(context.Context, Filter) (int, error)) func(context.Context, Filter) (changed, error) {
	return func(ctx context.Context, in Filter) (changed, error) {
		n, err := f(ctx, in)
		return changed{n}, err
	}
}

func handle[In, Out any](mux *http.ServeMux, name string, f func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST "+prefix+name, func(w http.ResponseWriter, r *http.Request) {
		var in In
		var out Out
		err := decodeRequest(w, r, &in)
		if err == nil {
			out, err = f(r.Context(), in)
		}
		reply(w, out, err)
	})
}

// reply writes an answer. It does not matter whether the client reads it.
func reply[T any](w http.ResponseWriter, result T, err error) {
	wire, status := toWire(err)
	writeJSON(w, status, answer[T]{result, wire})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func serveRaw(w http.ResponseWriter, r *http.Request, a Admin) {
	var in named
	if err := decodeRequest(w, r, &in); err != nil {
		reply(w, struct{}{}, err)
		return
	}
	raw, err := a.Raw(r.Context(), in.ID)
	if err != nil {
		reply(w, struct{}{}, err)
		return
	}
	defer func() { _ = raw.Close() }()
	w.Header().Set("Content-Type", rawType)
	w.Header().Set("Trailer", endTrailer)
	from := &failing{Reader: raw}
	_, _ = io.Copy(w, from) // from has the error that matters
	end := endWhole
	if wire, _ := toWire(from.err); wire != nil {
		end = wire.Code
	}
	w.Header().Set(endTrailer, end)
}

// failing remembers the error of a reader. io.Copy does not tell it from the writer's.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
