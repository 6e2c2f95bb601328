package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
)

// handler passes calls on to an Admin. Client has the other half of each.
func handler(a Admin) *http.ServeMux {
	mux := http.NewServeMux()
	handle(mux, "status", func(ctx context.Context, _ struct{}) (Status, error) { return a.Status(ctx) })
	handle(mux, "list", a.List)
	handle(mux, "get", func(ctx context.Context, in named) (Mail, error) { return a.Get(ctx, in.ID) })
	handle(mux, "hold", counting(a.Hold))
	handle(mux, "release", counting(a.Release))
	handle(mux, "retry", counting(a.Retry))
	handle(mux, "drop", counting(a.Drop))
	handle(mux, "flush", func(ctx context.Context, _ struct{}) (changed, error) {
		n, err := a.Flush(ctx)
		return changed{n}, err
	})
	handle(mux, "reload", func(ctx context.Context, _ struct{}) (Reload, error) { return a.Reload(ctx) })
	mux.HandleFunc("POST "+prefix+"raw", func(w http.ResponseWriter, r *http.Request) { serveRaw(w, r, a) })
	return mux
}

// historyHandler does so for a History.
func historyHandler(mux *http.ServeMux, h History) {
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

// reply writes an answer. Whoever does not read it is none of our business.
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
	_, _ = io.Copy(w, from)
	end := endWhole
	if wire, _ := toWire(from.err); wire != nil {
		end = wire.Code
	}
	w.Header().Set(endTrailer, end)
}

// failing remembers how a reader failed, which io.Copy mixes up with how its
// writer did.
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
