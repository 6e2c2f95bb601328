package smtpd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// A Change is what Prepare made ready: all that could fail has been done, and
// nothing shows yet. Apply or Undo ends it.
type Change struct {
	server *Server
	doors  []*door
	opened []*port // not there before
}

// Prepare makes ready to go on with other options: certificates are read and
// new listeners bound. Of the options, what is no setting (Backend, Memory, Log,
// Metrics and Panicked) stays that of the start. An error changes nothing.
//
// Listeners that are there already, by their address, keep their socket and
// their clients: those go on with the protocol, the encryption and the limits
// with which they came, and with who may send as it is now.
func (s *Server) Prepare(ctx context.Context, o Options) (*Change, error) {
	o.Backend, o.Memory, o.Log, o.Metrics, o.Panicked = s.options.Backend, s.options.Memory, s.options.Log, s.options.Metrics, s.options.Panicked
	if err := o.check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started || s.stopped {
		return nil, errors.New("smtpd: the server does not run")
	}
	return s.prepare(ctx, o)
}

func (s *Server) prepare(ctx context.Context, o Options) (*Change, error) {
	c := &Change{server: s}
	seen := map[string]int{}
	for _, config := range o.Listeners {
		seen[config.Address]++
		key := fmt.Sprintf("%s#%d", config.Address, seen[config.Address])
		ports, secure, err := s.prepareListener(ctx, o, config, key)
		if err != nil {
			c.Undo()
			return nil, err
		}
		for _, p := range ports {
			if !slices.Contains(s.ports, p) {
				c.opened = append(c.opened, p)
			}
			d := &door{
				port: p, config: config, options: o, limits: o.limits(s.memory), tls: secure, server: s,
				incoming: make(chan net.Conn), retired: make(chan struct{}),
			}
			d.sessions = s.newSessions(d)
			c.doors = append(c.doors, d)
		}
	}
	return c, nil
}

func (s *Server) prepareListener(ctx context.Context, o Options, config Listener, key string) ([]*port, *tls.Config, error) {
	ports := s.portsOf(key)
	secure, err := s.secure(o, config, ports)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot listen on %s: %w", config.Address, err)
	}
	if len(ports) > 0 {
		return ports, secure, nil
	}
	if s.started && strings.HasPrefix(config.Address, "systemd:") {
		return nil, nil, fmt.Errorf("cannot listen on %s: systemd hands sockets over at the start only; restart smtp2rest", config.Address)
	}
	sockets, err := bind(ctx, config)
	if err != nil {
		return nil, nil, s.ownPort(config, err)
	}
	for _, l := range sockets {
		ports = append(ports, &port{Listener: l, server: s, key: key})
	}
	return ports, secure, nil
}

// ownPort tells a port that this server has itself, by another address: both
// cannot be had at the same time, and the old one must not be let go of before
// the new one is there.
func (s *Server) ownPort(config Listener, err error) error {
	_, number, _ := net.SplitHostPort(config.Address)
	for _, p := range s.ports {
		if errors.Is(err, syscall.EADDRINUSE) && p.number() == number {
			return fmt.Errorf("cannot listen on %s while this daemon listens on %s; restart smtp2rest to change from one to the other", config.Address, p.Addr())
		}
	}
	return err
}

// secure is a listener's way to encrypt. A certificate of our own making stays
// while what it was made for does: clients may have taken note of it.
func (s *Server) secure(o Options, config Listener, ports []*port) (*tls.Config, error) {
	for _, p := range ports {
		if d := p.current(); config.TLS.SelfSigned && d.config.TLS == config.TLS && d.options.Hostname == o.Hostname {
			return d.tls, nil
		}
	}
	return config.TLS.config(o.Hostname, s.log)
}

func (s *Server) portsOf(key string) (list []*port) {
	for _, p := range s.ports {
		if p.key == key {
			list = append(list, p)
		}
	}
	return list
}

// Apply goes on with the new options. Listeners that are not among them are
// closed, and their clients drained: idle ones are told and closed, messages
// under way are dealt with.
func (c *Change) Apply() {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		c.Undo()
		return
	}
	s.apply(c)
}

func (s *Server) apply(c *Change) {
	before := s.ports
	s.ports = nil
	for _, d := range c.doors {
		if len(s.ports) == 0 {
			s.roster.bound(d.limits, slices.ContainsFunc(c.doors, (*door).letsSomebodyIn))
			s.meter.bound(d.limits)
		}
		s.ports = append(s.ports, d.port)
		if slices.Contains(before, d.port) {
			d.port.changeMode(d.config)
		}
		s.serve(d)
	}
	for _, p := range c.opened {
		s.serving.Go(p.accept)
	}
	for _, p := range before {
		if !slices.Contains(s.ports, p) {
			p.close()
			s.roster.stopAt(p)
		}
	}
}

// letsSomebodyIn reports whether clients can send by this door without a login.
func (d *door) letsSomebodyIn() bool {
	return !d.config.RequireAuth && (len(d.config.Networks) > 0 || d.port.Addr().Network() == "unix")
}

// serve runs a door until its last client has left. go-smtp's Shutdown is good
// for that: it waits for its connections, and leaves idle ones to us.
func (s *Server) serve(d *door) {
	d.port.lead(d)
	s.serving.Go(func() {
		_ = d.sessions.Serve(d) // its only error is that d retired
		_ = d.sessions.Shutdown(context.Background())
	})
}

// changeMode gives a unix socket that stays its new mode.
func (p *port) changeMode(config Listener) {
	path, ok := strings.CutPrefix(config.Address, "unix:")
	if !ok || p.current().config.SocketMode == config.SocketMode {
		return
	}
	if err := os.Chmod(path, cmp.Or(config.SocketMode, 0o660)); err != nil {
		p.server.log.Error("the mode of a socket cannot be changed", "socket", path, "error", err)
	}
}

// Undo gives back what was made ready.
func (c *Change) Undo() {
	for _, p := range c.opened {
		_ = p.Close()
	}
}
