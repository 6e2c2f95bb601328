// Package app wires the daemon from a configuration, top to bottom, and holds
// its life: New, Start, Addrs, Stop. It is the only package that knows both
// the SMTP side and the REST side besides relay/intake, and the only one that
// takes relay/config apart into the other packages' Options.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/api"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// What the provider's API told about recipients is remembered for this many
// addresses, and this long: afterwards the API is asked again.
const (
	suppressionsKept = 100_000
	suppressionTime  = 30 * 24 * time.Hour
)

// Options are what an App is made from.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
}

// App is one daemon. Several can live in one process.
type App struct {
	opt    Options
	client *api.Client
	server *smtpd.Server

	stopOnce sync.Once
	stopErr  error
}

// New wires an App. It opens no connection and starts nothing.
func New(o Options) (*App, error) {
	client, err := newClient(o)
	if err != nil {
		return nil, err
	}
	server, err := newServer(o, newIntake(o, client))
	if err != nil {
		return nil, err
	}
	return &App{opt: o, client: client, server: server}, nil
}

func newClient(o Options) (*api.Client, error) {
	c := o.Config.API
	var cas []byte
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("api.ca_file: %w", err)
		}
		cas = pem
	}
	client, err := api.New(api.Options{
		URL: c.URL, Path: c.Path, Key: c.Key.Reveal(), UserAgent: "smtp2rest/" + o.Version,
		Timeout: c.Timeout, ConnectTimeout: c.ConnectTimeout, Concurrency: c.Concurrency, ExtraCAs: cas,
	})
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return client, nil
}

func newIntake(o Options, client *api.Client) *intake.Intake {
	c := o.Config
	suppressions := suppress.New(suppressionsKept, suppressionTime)
	return intake.New(intake.Options{
		Mapping: Mapping(c),
		Attempts: attempt.New(attempt.Options{
			API: client,
			Pace: pace.New(pace.Options{
				Rate: c.API.Rate, Burst: c.API.Burst, Concurrency: c.API.Concurrency, MaxPause: c.API.MaxRetryAfter,
			}),
			Suppressions: suppressions,
			Log:          o.Log,
		}),
		Suppressions: suppressions,
		Queue:        intake.NoQueue{},
		Bounce:       bounce.Options{From: defaultSender(c), Hostname: c.Hostname},
		Wait:         c.Delivery.Wait,
		Log:          o.Log,
	})
}

func newServer(o Options, backend smtpd.Backend) (*smtpd.Server, error) {
	c := o.Config
	listeners := make([]smtpd.Listener, len(c.Listeners))
	for i, l := range c.Listeners {
		listeners[i] = smtpd.Listener{Address: l.Address, Networks: l.Networks}
	}
	return smtpd.New(smtpd.Options{
		Backend:   backend,
		Hostname:  c.Hostname,
		Listeners: listeners,
		Limits: smtpd.Limits{
			MessageBytes:          c.Limits.MessageSize,
			Recipients:            c.Limits.Recipients,
			LineBytes:             int(c.Limits.LineLength),
			Connections:           c.Limits.Connections,
			ConnectionsPerAddress: c.Limits.ConnectionsPerAddress,
			IdleTime:              c.Limits.IdleTime,
			MessageTime:           c.Limits.MessageTime,
		},
		Log: o.Log,
	})
}

func defaultSender(c *config.Config) relay.Address {
	return relay.Address{Email: c.Sender.Email, Name: c.Sender.Name}
}

// Start binds the listeners and begins to serve. When it returns without an
// error clients can connect; on an error nothing is left running.
func (a *App) Start(ctx context.Context) error {
	for _, w := range a.opt.Config.Warnings {
		a.opt.Log.Warn("configuration", "warning", w)
	}
	if err := a.server.Start(ctx); err != nil {
		return err
	}
	for _, addr := range a.Addrs() {
		a.opt.Log.Info("listening", "address", addr.String(), "version", a.opt.Version)
	}
	return nil
}

// Addrs are the addresses that are listened on, in the configuration's order.
func (a *App) Addrs() []net.Addr { return a.server.Addrs() }

// Stop ends the daemon in two stages: no new mail and idle clients told so,
// then, when ctx ends, whatever is still under way is cut off. It waits for
// all of it, and calling it again is harmless.
func (a *App) Stop(ctx context.Context) error {
	a.stopOnce.Do(func() {
		a.stopErr = errors.Join(a.server.Stop(ctx))
		a.client.Close()
		a.opt.Log.Info("stopped")
	})
	return a.stopErr
}
