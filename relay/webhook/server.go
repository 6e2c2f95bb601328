package webhook

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
)

// ServerOptions configure a Server.
type ServerOptions struct {
	Address           string       // host:port
	Listener          net.Listener // bound already; instead of Address
	CertFile, KeyFile string       // PEM files for https; both or neither
	Handler           http.Handler
	Log               *slog.Logger // nil: none

	// limits are the defaults where they are zero. With MaxBody for each connection,
	// all clients together use about 32 MiB.
	limits webserver.Limits
}

// Server is the server of the endpoint.
type Server struct{ *webserver.Server }

// NewServer returns a Server. It does nothing before Start.
func NewServer(o ServerOptions) *Server {
	stopping := func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusServiceUnavailable, "Try again later")
	}
	listen := func(ctx context.Context) (net.Listener, error) {
		if o.Listener != nil {
			return o.Listener, nil
		}
		return new(net.ListenConfig).Listen(ctx, "tcp", o.Address)
	}
	return &Server{webserver.New(webserver.Options{Handler: o.Handler, Stopping: http.HandlerFunc(stopping), Listen: listen,
		CertFile: o.CertFile, KeyFile: o.KeyFile, Limits: o.limits, Log: o.Log})}
}

// Stop accepts no more events. It waits for those in progress until ctx ends, and then
// cuts off the rest. The provider sends again what was not answered.
func (s *Server) Stop(ctx context.Context) error {
	_ = s.Server.Stop(ctx) // its error is about events that were cut off
	return nil
}
