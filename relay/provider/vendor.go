package provider

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Vendor is a provider that the setting api.provider can name: all that the relay has to
// know of one. vendors.All lists them.
type Vendor struct {
	// Name is the word of api.provider, in small letters and digits. Variable and
	// Credential make other names of it.
	Name string

	URL          string // the default of api.url
	Path         string // the default of api.path
	RegisterPath string // the default of webhook.register_path

	// Settings returns a new Settings for one configuration.
	Settings func() Settings
	// Client returns a Client for one account. It makes no connection.
	Client func(Connection) (AccountClient, error)
	Events Events
	// Registrar returns a Registrar for one account. Path is webhook.register_path.
	Registrar func(Connection) Registrar
	// Sandbox returns a server that plays the vendor's API. It is not started.
	Sandbox func(SandboxOptions) Sandbox
}

// Variable returns the environment variable of a setting: ACME_API_KEY for "api_key" of
// the vendor acme.
func (v Vendor) Variable(setting string) string {
	return strings.ToUpper(v.Name + "_" + setting)
}

// Credential returns the systemd credential that has the API key.
func (v Vendor) Credential() string { return v.Name + "_api_key" }

// Settings are the vendor's own settings, which are in the table [mail] of the file. They
// are a pointer to a struct whose fields declare them (internal/settings).
type Settings interface {
	Format

	// Check reports settings that do not fit each other. attachments says whether
	// there are attachments to send. It calls problem with the name of a setting in
	// [mail], what was found and what is wrong with it. It returns the fields of a
	// payload that cannot have other values, each with who has it.
	Check(attachments bool, problem func(setting, found, wrong string)) (taken map[string]string)

	// HeaderField returns the field that has the Headers of a mail, and whether all
	// headers without a field of their own go there.
	HeaderField() (name string, all bool)
}

// AccountClient is the Client of one account.
type AccountClient interface {
	Client

	// Prepare returns a function that puts another connection into force, except
	// Metrics. Calls under way end as they began.
	Prepare(c Connection) (apply func(), err error)
	// Close closes idle connections.
	Close()
}

// Connection says where the API is and how it is called.
type Connection struct {
	URL       string // of the API
	Path      string // of the call, below URL
	Key       string
	UserAgent string
	Timeouts
	Concurrency int    // idle connections to keep
	ExtraCAs    []byte // PEM certificates to trust beside the system's

	Metrics prometheus.Registerer // nil: none

	// Dial, if set, replaces the network, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Address returns the URL of the call.
func (c Connection) Address() string {
	return strings.TrimRight(c.URL, "/") + "/" + strings.TrimLeft(c.Path, "/")
}

// Timeouts bound a call. internal/settings explains the tags.
type Timeouts struct {
	Timeout time.Duration `toml:"timeout" default:"10s" range:"1ms..5m" doc:"The longest time for a whole call."`
	// ConnectTimeout is that of dialing, and of TLS.
	ConnectTimeout time.Duration `toml:"connect_timeout" default:"5s" range:"1ms..5m" doc:"The longest time for connecting, which is part of timeout."`
}
