package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/internal/handover"
	"github.com/smtp2rest/smtp2rest/smtpd/holder"
)

// endpointDrain is how long the end waits for requests under way: they are
// small. leaveTime is that for a server that a reload replaces.
const (
	endpointDrain = 2 * time.Second
	leaveTime     = 10 * time.Second
)

// webServer is a server that an endpoint has.
type webServer interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// endpoint is a server on a TCP address of its own, which a reload can replace
// by one with other settings or at another address.
type endpoint struct {
	setting string // that names the address

	mu       sync.Mutex
	address  string           // as configured; "" is none
	settings any              // of the server
	socket   *handover.Socket // nil when there is none
	server   webServer

	leaving sync.WaitGroup  // servers that were replaced
	life    context.Context // ends when they have to
	end     context.CancelFunc
}

func newEndpoint(setting string) *endpoint {
	e := &endpoint{setting: setting}
	e.life, e.end = context.WithCancel(context.Background())
	return e
}

// addr is where it listens; nil when it does not.
func (e *endpoint) addr() net.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.socket == nil {
		return nil
	}
	return e.socket.Addr()
}

// serving is the server that answers; nil when there is none.
func (e *endpoint) serving() webServer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server
}

// prepare binds the address, unless it is bound, and starts the server that is
// to answer there, which gets no client before the change applies. A server
// whose settings are the same stays; nil are never the same.
func (e *endpoint) prepare(ctx context.Context, address string, settings any, server func(net.Listener) webServer) (change, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case address == "":
		return change{apply: func() { e.replace("", nil, nil, nil) }}, nil
	case e.server != nil && settings != nil && reflect.DeepEqual(settings, e.settings):
		return change{apply: func() {}}, nil
	}
	socket := e.socket
	opened := socket == nil || address != e.address
	if opened {
		var err error
		if socket, err = handover.Listen(ctx, address); err != nil {
			return change{}, e.bindError(address, err)
		}
	}
	listener := socket.NewListener()
	next := server(listener)
	if err := next.Start(ctx); err != nil {
		if opened {
			socket.Close()
		}
		return change{}, fmt.Errorf("%s: %w", e.setting, err)
	}
	return change{
		apply: func() { listener.Activate(); e.replace(address, settings, socket, next) },
		undo: func() {
			_ = next.Stop(ctx) // it has no client
			if opened {
				socket.Close()
			}
		},
	}, nil
}

// bindError says what keeps it from the address, and what to do.
func (e *endpoint) bindError(address string, err error) error {
	if !errors.Is(err, holder.InUse) {
		return fmt.Errorf("%s: %w", e.setting, err)
	}
	_, port, _ := net.SplitHostPort(address)
	if e.socket != nil {
		if _, own, _ := net.SplitHostPort(e.socket.Addr().String()); own == port {
			return fmt.Errorf("%s: it cannot be %s while this daemon has %s; restart smtp2rest to change from one to the other, or name another port", e.setting, address, e.socket.Addr())
		}
	}
	return fmt.Errorf("%s %s: %s; name a free one in %[1]s", e.setting, address, holder.Says(address))
}

// replace has another server answer. The one before deals with the requests that
// it has; the reload that brought us here may be one of them, so that nobody
// waits for it.
func (e *endpoint) replace(address string, settings any, socket *handover.Socket, server webServer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, from := e.server, e.socket
	e.address, e.settings, e.socket, e.server = address, settings, socket, server
	if before == nil {
		return
	}
	if from != socket {
		from.Close()
	}
	e.leaving.Go(func() {
		ctx, cancel := context.WithTimeout(e.life, leaveTime)
		defer cancel()
		_ = before.Stop(ctx) // what is cut off then had its time
	})
}

// stop ends what answers and what was replaced.
func (e *endpoint) stop(ctx context.Context) (err error) {
	e.mu.Lock()
	server, socket := e.server, e.socket
	e.server, e.socket = nil, nil
	e.mu.Unlock()
	if server != nil {
		// A drain that took all its time is no reason to cut an operator off.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endpointDrain)
		defer cancel()
		err = server.Stop(ctx)
		socket.Close()
	}
	e.end()
	e.leaving.Wait()
	return err
}
