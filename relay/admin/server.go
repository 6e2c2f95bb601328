package admin

import (
	"context"
	"log/slog"
)

// ServerOptions are what a Server is made from.
type ServerOptions struct {
	Admin Admin
	// Path of the socket; at most some 100 bytes, which is the kernel's limit.
	// Whoever may open it may do anything: it gets mode 0600, and its owner is
	// the daemon's user.
	Path string
	Log  *slog.Logger // nil: none
}

// Server answers a Client on a unix socket.
type Server struct{ opt ServerOptions }

// NewServer returns a Server that does nothing yet.
func NewServer(o ServerOptions) *Server { return &Server{opt: o} }

// Start binds the socket and serves until Stop. A socket file that a dead
// daemon left is removed; one that a living daemon answers on is not, and
// Start fails with ErrInUse. ctx bounds the start, not the life.
func (s *Server) Start(ctx context.Context) error { return nil }

// Stop takes no more calls and lets those under way end until ctx does; then
// they are cut off. It waits for all of it. Stop before Start, or twice, is
// harmless.
func (s *Server) Stop(ctx context.Context) error { return nil }
