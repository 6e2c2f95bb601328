package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Errors of a connection to the daemon.
var (
	// ErrNotRunning says that no daemon answers.
	ErrNotRunning = errors.New("no daemon answers")
	// ErrInUse says that another daemon answers on the socket.
	ErrInUse = errors.New("another smtp2rest answers on this socket")
)

// SocketName is the name of a daemon's socket in its data directory.
const SocketName = "admin.sock"

// SocketIn returns the path of the socket for a data directory.
func SocketIn(dataDir string) string { return filepath.Join(dataDir, SocketName) }

// socketMode lets only the owner in, because whoever can write to the socket can do
// everything.
const socketMode = 0o600

// listen binds the address or the socket.
func (o ServerOptions) listen(ctx context.Context) (net.Listener, error) {
	if o.Address == "" {
		return listen(ctx, o.Path)
	}
	if o.Listener != nil {
		return o.Listener, nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	return ln, nil
}

// listen binds the socket, and replaces one that nobody answers on. It need not care for
// two daemons that start at the same moment: the lock of the data directory does.
func listen(ctx context.Context, path string) (net.Listener, error) {
	ln, err := bind(ctx, path)
	if !errors.Is(err, addrInUse) {
		return ln, err
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	return bind(ctx, path)
}

func bind(ctx context.Context, path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: private}
	ln, err := lc.Listen(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.EINVAL):
		return nil, fmt.Errorf("admin socket %s: the path has %d bytes, and the system takes some 100: %w", path, len(path), err)
	case err != nil:
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("admin socket: %w", err), ln.Close())
	}
	return ln, nil
}

// removeStale removes the socket of a daemon that is dead, and nothing else.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("admin socket %s: there is something else of that name, which is left alone", path)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("%s: %w", path, ErrInUse)
	case errors.Is(err, refused):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	// For example EAGAIN: a daemon is there, and is busy.
	return fmt.Errorf("%s: %w (%w)", path, ErrInUse, err)
}

// dialError says why a client cannot reach the daemon, and what to do.
func dialError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: there is no socket %s", ErrNotRunning, path)
	case errors.Is(err, refused):
		return fmt.Errorf("%w on %s", ErrNotRunning, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not open the socket %s; try again with sudo, or as the daemon's user: %w", path, fs.ErrPermission)
	}
	return err
}
