package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// The pages that are read with GET, by people, supervisors and monitoring.
const (
	Livez   = "/livez"   // does the process make progress? If not, end it
	Readyz  = "/readyz"  // can mail be handed over? If not, send none here
	Metrics = "/metrics" // for Prometheus
	status  = "/status"  // Status, as JSON
)

// healthTime bounds a check. What takes longer is not well.
const healthTime = 5 * time.Second

// Health is what supervisors ask a daemon. A nil function is always well.
type Health struct {
	Live  func(context.Context) error
	Ready func(context.Context) error
}

// handlePages adds the pages that are read with GET.
func handlePages(mux *http.ServeMux, o ServerOptions) {
	mux.Handle("GET "+Livez, healthPage(o.Health.Live, healthTime))
	mux.Handle("GET "+Readyz, healthPage(o.Health.Ready, healthTime))
	mux.HandleFunc("GET "+status, func(w http.ResponseWriter, r *http.Request) {
		s, err := o.Admin.Status(r.Context())
		if err != nil {
			reply(w, struct{}{}, err)
			return
		}
		writeJSON(w, http.StatusOK, s)
	})
	if o.Metrics != nil {
		mux.Handle("GET "+Metrics, metricsHandler(o.Metrics, o.Log))
	}
}

// healthPage answers 200 or 503, and with a word or the reason.
func healthPage(check func(context.Context) error, limit time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if check != nil {
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			if err := check(ctx); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = fmt.Fprintln(w, text(err.Error()))
				return
			}
		}
		_, _ = io.WriteString(w, "ok\n")
	})
}
