package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/smtp2rest/smtp2rest/smtpd/holder"
)

// bind opens the sockets of one address: one, but for systemd's, of which
// several may have one name.
func bind(ctx context.Context, config Listener) ([]net.Listener, error) {
	if name, ok := strings.CutPrefix(config.Address, "systemd:"); ok {
		return inherited(name, os.Getenv, os.Getpid(), firstInherited)
	}
	listen := listenTCP
	if path, ok := strings.CutPrefix(config.Address, "unix:"); ok {
		listen = func(ctx context.Context, _ string) (net.Listener, error) {
			return listenUnix(ctx, path, config.SocketMode)
		}
	}
	l, err := listen(ctx, config.Address)
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

// listenTCP says what to do about an address that cannot be had.
func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: %s; stop it or choose another port: %w", address, holder.Says(address), err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("cannot listen on %s: no permission; ports below 1024 need a privilege: let systemd open it (smtp2rest.socket and address = \"systemd:smtp\"), or give the program AmbientCapabilities=CAP_NET_BIND_SERVICE, or choose a higher port: %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: this machine has no such address; use one of its own: %w", address, err)
	}
	return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
}

// listenUnix also takes the place of a socket that a process left behind.
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("cannot listen on %s: another program uses this socket", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
			_ = os.Remove(path) // if it stays, listening says why
		}
	}
	if mode == 0 {
		mode = 0o660
	}
	l, err := bindUnix(ctx, path, mode)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return l, nil
}

// bindUnix opens a socket that nobody can connect to whom its mode keeps out, not
// even for a moment: the umask, which net leaves it to, may let in more. Linux
// makes the file with the mode that the socket has, less the umask; elsewhere
// only the directory keeps others out until the mode is set.
func bindUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { chmodSocket(fd, mode) })
	}}
	return config.Listen(ctx, "unix", path)
}

// unwanted are the names of sockets that systemd opened for this process and no
// listener takes. Clients connect to those and hear nothing.
func unwanted(listeners []Listener, env func(string) string, pid int) (names []string) {
	if env("LISTEN_PID") != strconv.Itoa(pid) {
		return nil
	}
	for _, name := range strings.Split(env("LISTEN_FDNAMES"), ":") {
		taken := slices.ContainsFunc(listeners, func(l Listener) bool { return l.Address == "systemd:"+name })
		if name != "" && !taken && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// firstInherited: sd_listen_fds(3).
const firstInherited = 3

// inherited takes the sockets of a name that systemd opened for this process.
func inherited(name string, env func(string) string, pid, first int) (list []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range list {
				_ = l.Close()
			}
		}
	}()
	if env("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, fmt.Errorf("cannot listen on systemd:%s: systemd gave this process no sockets; is there a .socket unit, and was it started?", name)
	}
	n, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("cannot listen on systemd:%s: LISTEN_FDS is not a number", name)
	}
	names := strings.Split(env("LISTEN_FDNAMES"), ":")
	for i := range n {
		if i >= len(names) || names[i] != name {
			continue
		}
		f := os.NewFile(uintptr(first+i), name)
		if f == nil {
			return list, fmt.Errorf("cannot listen on systemd:%s: there is no such file", name)
		}
		l, err := net.FileListener(f) // a copy, which programs we start do not inherit
		_ = f.Close()
		if err != nil {
			return list, fmt.Errorf("cannot listen on systemd:%s: %w", name, err)
		}
		list = append(list, l)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("cannot listen on systemd:%s: systemd's sockets are called %s; set FileDescriptorName=%s", name, strings.Join(names, ", "), name)
	}
	return list, nil
}
