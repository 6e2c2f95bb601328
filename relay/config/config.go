// Package config reads a TOML file and the environment into a Config. If something
// is wrong, it returns all problems at once, and each says what to write instead.
//
// A setting is a field. Its tag has its name, default, range and explanation
// (internal/settings). Settings of a package are declared there, in a struct that is
// embedded here. The example file, the reference, the messages and the comparison of
// two configurations are all made from the tags. relay/app passes the values to the
// packages; no other package of relay imports this one.
package config

import (
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/alias"
	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/logs"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/notify"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/warm"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

//go:generate go test -run ^(TestExampleFile|TestReferenceDocument)$ -update .

// Config is a valid configuration. Its tables are in the order of the example file.
type Config struct {
	Hostname    string `toml:"hostname" usual:"the name of this machine" check:"hostname" example:"\"relay.example.com\"" doc:"The name with which the relay greets SMTP clients."`
	RedirectAll string `toml:"redirect_all" check:"email" doc:"All mail goes to this address in place of its recipients, whom it names at its top (docs/staging.md)."`
	ArchiveBcc  string `toml:"archive_bcc" check:"email" doc:"A copy of each mail that is accepted goes to this address, as a call of its own (docs/archive.md). \"\": none."`
	// The users of this file are at the end of Users.
	UsersFile string `toml:"users_file" check:"file" doc:"A file of users who may log in, in addition to [[user]]. It has lines of name:hash, as htpasswd -B and 'smtp2rest hash-password' write them, and is read again when it changes."`
	Addresses Addresses

	API      API         `toml:"api" doc:"The provider's REST API. The key is not set here. It comes from the environment variable <PROVIDER>_API_KEY, from the file that <PROVIDER>_API_KEY_FILE or key_file names, or from the systemd credential <provider>_api_key."`
	Accounts []Account   `toml:"account" doc:"One more account at the provider (docs/accounts.md). There is none by default; repeat the table for more. What is not set is as in [api] and [sender], which are the default account. Its key comes from the environment variable <PROVIDER>_API_KEY_<NAME>, from the file that <PROVIDER>_API_KEY_<NAME>_FILE or key_file names, or from the systemd credential <provider>_api_key_<name>."`
	Sender   Sender      `toml:"sender" doc:"Who the mail comes from. The provider sends only for domains verified with it."`
	Mail     Mail        `toml:"mail" doc:"What to do with the parts of a mail for which the API documents no field."`
	Delivery Delivery    `toml:"delivery" doc:"How mail is tried."`
	Queue    Queue       `toml:"queue" doc:"Mail that could not be sent while its client waited."`
	Store    Store       `toml:"store" doc:"Where the queue, the suppressions and the history are kept, if not in queue.data_dir (docs/postgresql.md)."`
	Bounce   Bounce      `toml:"bounce" doc:"How senders learn that mail could not be delivered."`
	History  History     `toml:"history" doc:"A record of each mail, for 'smtp2rest trace' (docs/history.md). It is kept in queue.data_dir, and so only with a queue. It never contains bodies."`
	Warming  []warm.Plan `toml:"warming" doc:"Limits a new domain to a number of mails that grows every day (docs/warming.md). Further mail waits in the queue. There is none by default; repeat the table for more."`
	// There is at least one.
	Listeners   []smtpd.Listener  `toml:"listener" doc:"An address to listen on. Repeat the table for more."`
	Rules       policy.Rules      `toml:"rules" doc:"Which senders and recipients are allowed, for everybody. A list has addresses, \"@example.com\" for a domain, \"@.example.com\" for a domain and all below it, and * for any characters; \"<>\" is the null sender of bounces. What is denied is refused. If anything is allowed, all else is refused. Listeners and users can have such lists as well (docs/access.md)."`
	Sendmail    Sendmail          `toml:"sendmail" doc:"Mail of programs that call sendmail while the relay is away (docs/send.md)."`
	Users       []User            `toml:"user" doc:"A user who may log in. There is none by default; repeat the table for more."`
	Limits      Limits            `toml:"limits" doc:"The most that clients can use."`
	Admin       Admin             `toml:"admin" doc:"How the relay is watched and controlled: by its own commands, a supervisor, Prometheus. The token comes from the environment variable SMTP2REST_ADMIN_TOKEN, from the file that SMTP2REST_ADMIN_TOKEN_FILE or token_file names, or from the systemd credential smtp2rest_admin_token."`
	Operators   []Operator        `toml:"operator" doc:"Somebody who may log in at the page on admin.address (docs/page.md). There is none by default; repeat the table for more."`
	Log         logs.Settings     `toml:"log" doc:"The program's own log, on standard error."`
	Suppression suppress.Settings `toml:"suppression" doc:"Addresses to which no mail may be sent (docs/suppression.md)."`
	Webhook     Webhook           `toml:"webhook" doc:"Events from the provider. The secret comes from the environment variable WEBHOOK_SECRET, from the file that WEBHOOK_SECRET_FILE or secret_file names, or from the systemd credential webhook_secret."`

	Notify   Notify    `toml:"notify" doc:"Who is told of failures (docs/notify.md): a key that is refused, an API that is down, a queue that is old or nearly full, a disk that is nearly full, mail that failed, many bounces or complaints. Nobody is, by default. The secret comes from the environment variable SMTP2REST_NOTIFY_SECRET, from the file that SMTP2REST_NOTIFY_SECRET_FILE or secret_file names, or from the systemd credential smtp2rest_notify_secret."`
	Forwards []Forward `toml:"forward" doc:"An address of an application to which events are posted as signed JSON: the provider's, and what the relay itself decides (docs/forward.md). There is none by default; repeat the table for more. The secret comes from the environment variable SMTP2REST_FORWARD_SECRET_<NAME>, from the file that SMTP2REST_FORWARD_SECRET_<NAME>_FILE or secret_file names, or from the systemd credential smtp2rest_forward_secret_<name>."`

	// Warnings are about settings that work but are probably not intended, one line each.
	Warnings []string

	settings   []setting         // as loaded, for Describe
	files      map[string]string // digests of the files that were read besides the configuration
	tableUsers int               // how many of Users are not from UsersFile
}

// Addresses are the domain and the aliases of recipients.
type Addresses struct {
	// It is "" only if Sender.Email is.
	QualifyDomain string        `toml:"qualify_domain" usual:"the domain of sender.email" check:"domain" example:"\"mail.example.com\"" doc:"The domain that is added to addresses without one, such as root."`
	AliasFile     string        `toml:"alias_file" check:"file" doc:"A file in the format of /etc/aliases. It is read again when it changes. A relative path starts at the directory of this file."`
	Aliases       []alias.Entry `toml:"aliases" doc:"More aliases, also as a table [aliases]: root = [\"ops@example.com\"]. A name is a local name, an address, \"@domain\" for a whole domain, or \"*\" for all other local names."`
	Local         []string      // further domains of which local names are meant
}

// API says how to call the provider's API.
type API struct {
	Provider string          `toml:"provider" default:"<first provider>" words:"<providers>" restart:"its client is made at the start" doc:"The provider that sends all mail: <quoted providers>. Each has its own defaults for url, path and webhook.register_path, and its name is part of its variables."`
	Vendor   provider.Vendor // the one that Provider names
	// URL is without a slash at its end.
	URL           string `toml:"url" default:"<url>" check:"url" env:"<PROVIDER>_API_URL" doc:"The base URL of the API."`
	Path          string `toml:"path" default:"<path>" check:"path" doc:"The path of the call that sends a mail, below url."`
	AllowInsecure bool   `toml:"allow_insecure" doc:"Allows an http:// URL on another machine. The key then travels unencrypted."`
	// It is always set if the Source requires it.
	Key Secret `toml:"key" env:"<PROVIDER>_API_KEY" credential:"<provider>_api_key api_key" doc:"The API key. It is a secret and not set in the file."`
	// Its content is in Key.
	KeyFile string `toml:"key_file" check:"secret file" doc:"A file that contains only the API key. The path begins with /, or with ./ for the directory of this file."`
	provider.Timeouts
	CAFile        string `toml:"ca_file" check:"file" doc:"A file of PEM certificates to trust in addition to the system's. A relative path starts at the directory of this file."`
	pace.Settings        // Burst is at least 1
}

// Sender is the sender that the provider knows.
type Sender struct {
	// It is always set if Source.NeedAPI is.
	Email string `toml:"email" check:"email" env:"FROM_EMAIL" example:"\"hello@mail.example.com\"" doc:"The sender of mail whose own From is not in a verified domain, and of the relay's own mail. It must be set, here or in the environment."`
	Name  string `toml:"name" env:"FROM_NAME" doc:"The display name of this sender."`
	// They are in lower case. There are none only if Email is "".
	Domains []string          `toml:"domains" usual:"the domain of email" check:"domains" example:"[\"mail.example.com\"]" doc:"The domains that are verified with the provider."`
	Foreign mail.SenderPolicy `toml:"foreign" default:"rewrite" words:"rewrite refuse" doc:"What to do with mail from other domains. \"rewrite\" sends it from email, with its own sender in Reply-To; \"refuse\" refuses it."`
}

// Mail says how to send parts of a mail for which the API documents no field.
type Mail struct {
	Attachments mail.AttachmentPolicy `toml:"attachments" default:"refuse" words:"refuse strip send" doc:"What to do with attachments: \"refuse\" the mail, \"strip\" them with a notice in the text, or \"send\" them in the fields below. The API documents no such fields: ask the provider."`
	// Inline is never "" in a Config.
	Inline mail.AttachmentPolicy `toml:"inline" usual:"\"send\" if attachments are sent, else \"strip\"" words:"refuse strip send" example:"\"strip\"" doc:"What to do with images that the html shows: \"refuse\" the mail, \"strip\" them and keep their alternative text, or \"send\" them."`
	Fields provider.Settings     // the vendor's own
	// The names are those of headers; the texts were read by mail.ParseTarget.
	HeaderFields settings.Pairs `toml:"fields" check:"header fields" usual:"none" example:"{ \"X-Tag\" = \"tags[]\", \"X-Team\" = \"metadata.team\" }" doc:"JSON fields that take the values of headers: a text, a list, part of an object (docs/attachments.md). The API documents none: ask the provider."`
}

// Delivery says when mail is tried.
type Delivery struct {
	Wait  time.Duration `toml:"wait" default:"10s" range:"0s..5m" doc:"How long a client waits for the API's answer to its mail. \"0s\": not at all, all mail goes to the queue."`
	Retry retry.Schedule
}

// Queue says where unsent mail is kept, and how much.
type Queue struct {
	Mode          QueueMode     `toml:"mode" default:"disk" words:"disk none" restart:"where mail is kept is decided at the start" doc:"\"disk\" keeps mail that could not be sent at once in data_dir until it can be sent. \"none\" answers it with a temporary error: the client has to try again."`
	DataDir       string        `toml:"data_dir" usual:"systemd's STATE_DIRECTORY, or the user's own" check:"dir" env:"SMTP2REST_DATA_DIR" restart:"the queue in it is open" example:"\"/var/lib/smtp2rest\"" doc:"The directory of the queue, on a disk that outlives the process; in a container, a volume. Without systemd it is smtp2rest in ~/.local/state, or in /var/lib for root."`
	queue.Options               // ForgetSent is true when KeepSent is 0
	KeepSent      time.Duration `toml:"keep_sent" default:"1d" range:"0s..366d" doc:"How long sent mail stays listed, without its content."`
	KeepFailed    time.Duration `toml:"keep_failed" default:"30d" range:"0s..3660d" doc:"How long failed mail is kept after it was given up, so that it can be retried. \"0s\": until it is dropped."`
}

// Sendmail says where sendmail(1) keeps mail while the relay is away.
type Sendmail struct {
	// It is spool.Off if there is none.
	Spool string `toml:"spool" default:"/var/spool/smtp2rest" check:"spool" env:"SMTP2REST_SPOOL" doc:"Where sendmail keeps mail while the relay is away (docs/send.md): a directory of the relay's user with mode 3733. \"none\": nowhere."`
}

// Store says which engine keeps what is kept.
type Store struct {
	// It is not set if queue.data_dir has the store.
	URL Secret `toml:"url" check:"store url" env:"SMTP2REST_STORE_URL" credential:"smtp2rest_store_url" restart:"the store is open" example:"\"postgres://relay@db.example.com/mail\"" doc:"The URL of a PostgreSQL database that several relays share. \"\": the embedded store in queue.data_dir. A URL with a password is a secret and not set in the file."`
	// Its content is in URL.
	URLFile string `toml:"url_file" check:"secret file" restart:"the store is open" doc:"A file that contains only the URL. The path begins with /, or with ./ for the directory of this file."`
}

// QueueMode says whether there is a queue.
type QueueMode string

// The words of queue.mode.
const (
	OnDisk  QueueMode = "disk"
	NoQueue QueueMode = "none"
)

// Bounce says how senders are told of mail that could not be delivered.
type Bounce struct {
	Postmaster string `toml:"postmaster" usual:"postmaster at the domain of sender.email" check:"postmaster" example:"\"postmaster@mail.example.com\"" doc:"Who is told when the sender is an address that cannot receive mail, such as root@localhost. \"none\": nobody."`
	deliver.Bounces
}

// Nobody is the value of Bounce.Postmaster if nobody is to be told.
const Nobody = "none"

// History says how long the records of mail are kept.
type History struct {
	history.Bounds
	Subjects bool `toml:"subjects" doc:"Whether records contain subjects, so that they can be searched. Subjects often say private things."`
}

// User is a user who may log in.
type User struct {
	Name            string         `toml:"name" check:"user name" example:"\"app\"" doc:"The name to log in with. It must be set."`
	Hash            string         `toml:"password_hash" check:"hash" example:"\"$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq\"" doc:"The bcrypt hash of the password, as 'smtp2rest hash-password' makes it. It must be set."`
	Senders         policy.List    `toml:"senders" doc:"If there are any, the user may only send as these, in MAIL FROM and in From: a list as in [rules]."`
	DenySenders     policy.List    `toml:"deny_senders" doc:"The user may not send as these, in MAIL FROM or in From."`
	AllowRecipients policy.List    `toml:"allow_recipients" doc:"If there are any, the user may only send to these."`
	DenyRecipients  policy.List    `toml:"deny_recipients" doc:"The user may not send to these."`
	From            string         `toml:"from" check:"email" doc:"The sender of the user's mail if its own From is not in a verified domain. \"\": sender.email, with its name."`
	FromName        string         `toml:"from_name" doc:"The display name of this sender."`
	RedirectAll     string         `toml:"redirect_all" check:"email" doc:"The user's mail goes to this address in place of its recipients (docs/staging.md). \"\": to them."`
	Fields          settings.Pairs `toml:"fields" check:"fixed fields" doc:"Values that the JSON of the user's mail has in fields as in mail.fields, whatever the mail says."`
	Account         string         `toml:"account" check:"optional account" doc:"The account that sends the user's mail, by its name; \"default\" is that of [api]. \"\" is the listener's, or the one whose domains the mail is from."`
	Rate            auth.Rate      `toml:"rate" doc:"The most recipients of the user, as in \"600/hour\". \"\": limits.rate_per_user."`
}

// Policy returns the rules that bind the user.
func (u User) Policy() policy.Rules {
	return policy.Rules{
		AllowSenders: u.Senders, DenySenders: u.DenySenders,
		AllowFrom: u.Senders, DenyFrom: u.DenySenders,
		AllowRecipients: u.AllowRecipients, DenyRecipients: u.DenyRecipients,
	}
}

// Limits limit what clients can use.
type Limits struct {
	Memory int64 `toml:"memory" default:"192MiB" range:"16MiB..1024GiB" restart:"the memory of the process is bounded at the start" doc:"Memory for mail in flight, two to eleven times its size, and connections, 32KiB each. When it is used up, clients wait 5 s and are then told to try later (docs/limits.md)."`
	smtpd.Limits
}

// Admin says how operators, supervisors and monitoring reach the daemon.
type Admin struct {
	Socket     string   `toml:"socket" check:"socket" env:"SMTP2REST_ADMIN_SOCKET" restart:"commands reach this daemon through the socket that is open" doc:"The unix socket of 'smtp2rest status' and 'queue', for the daemon's user alone. \"\": admin.sock in queue.data_dir, or without a queue in RUNTIME_DIRECTORY, or the like."`
	RuntimeDir string   // the directory of the socket, if there is no data directory
	Address    string   `toml:"address" check:"admin address" env:"SMTP2REST_ADMIN_ADDRESS" doc:"The address of the page (docs/page.md), /livez, /readyz, /metrics and /status, as in \"127.0.0.1:9090\". \"\": none. For other machines a token is needed."`
	Hosts      []string `toml:"hosts" check:"domains" doc:"Names by which a browser may ask for the page, as in [\"relay.example.com\"], besides localhost and IP addresses. Others are refused (docs/page.md)."`
	CertFile   string   `toml:"cert_file" check:"file" doc:"The certificate and its intermediate certificates in PEM, for https on address. The file is read again when it changes. A relative path starts at the directory of this file."`
	KeyFile    string   `toml:"key_file" check:"file" doc:"The certificate's key, in PEM."`
	// It is always set if other machines can reach Address.
	Token Secret `toml:"token" env:"SMTP2REST_ADMIN_TOKEN" credential:"smtp2rest_admin_token" doc:"The token that clients of the address send as \"Authorization: Bearer\". It is a secret and not set in the file."`
	// Its content is in Token.
	TokenFile string `toml:"token_file" check:"secret file" doc:"A file that contains only the token. The path begins with /, or with ./ for the directory of this file."`
	Open      Open   `toml:"open" default:"health" words:"nothing health metrics" doc:"What the address shows without the token: \"nothing\"; \"health\", which is /livez and /readyz; or \"metrics\" as well."`
}

// Operator is somebody who may log in at the page.
type Operator struct {
	Name string `toml:"name" check:"user name" example:"\"alice\"" doc:"The name of the operator, as it is logged with what they do. It must be set."`
	Role string `toml:"role" default:"read" words:"read operate bodies" doc:"\"read\" sees everything but the content of mail; \"operate\" can also change the queue and the suppressions; \"bodies\" can also see the content of mail."`
	Hash string `toml:"token_hash" check:"token hash" example:"\"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"" doc:"The hash of the token, which 'smtp2rest token' makes with it. It must be set."`
}

// Open says what Address shows without the token.
type Open string

// The words of admin.open.
const (
	OpenNothing Open = "nothing"
	OpenHealth  Open = "health"
	OpenMetrics Open = "metrics"
)

// Webhook says where the provider's events come in, and which secret signs them.
type Webhook struct {
	Address  string `toml:"address" check:"address" doc:"Address and port for the provider's events, as in \"127.0.0.1:8026\". \"\": none. The provider must be able to reach it: through a proxy, or by https with cert_file."`
	Path     string `toml:"path" default:"/webhook" check:"path" doc:"The path for events."`
	CertFile string `toml:"cert_file" check:"file" doc:"The certificate and its intermediate certificates in PEM, for https. The file is read again when it changes. A relative path starts at the directory of this file."`
	KeyFile  string `toml:"key_file" check:"file" doc:"The certificate's key, in PEM."`
	Secret   Secret `toml:"secret" env:"WEBHOOK_SECRET" credential:"webhook_secret" doc:"The secret with which the provider signs events. It is not set in the file."`
	// Its content is in Secret.
	SecretFile     string `toml:"secret_file" check:"secret file" doc:"A file that contains only this secret. The path begins with /, or with ./ for the directory of this file. 'smtp2rest webhook register' writes it."`
	PreviousSecret Secret `toml:"previous_secret" env:"WEBHOOK_SECRET_PREVIOUS" credential:"webhook_secret_previous" doc:"The secret before this one, which is accepted while the provider changes from one to the other. It is not set in the file."`
	// Its content is in PreviousSecret.
	PreviousSecretFile   string `toml:"previous_secret_file" check:"secret file" doc:"A file that contains only the secret before this one. 'smtp2rest webhook register' writes it."`
	SuppressUnsubscribed bool   `toml:"suppress_unsubscribed" doc:"Refuses mail to addresses that unsubscribed. Otherwise they are only marked: they may still expect a receipt or a password reset."`
	RegisterPath         string `toml:"register_path" default:"<register path>" check:"path" doc:"The path of the call that registers the endpoint, below api.url."`
}

// Notify says who is told of failures, and of which.
type Notify struct {
	notify.Settings
	// It is always set if URL is.
	Secret Secret `toml:"secret" env:"SMTP2REST_NOTIFY_SECRET" credential:"smtp2rest_notify_secret" doc:"The secret with which what is posted to url is signed. It is not set in the file."`
	// Its content is in Secret.
	SecretFile string `toml:"secret_file" check:"secret file" doc:"A file that contains only this secret. The path begins with /, or with ./ for the directory of this file."`
}

// Forward is an address to which events are posted.
type Forward struct {
	forward.Endpoint
	// It is always set.
	Secret Secret `toml:"secret" env:"SMTP2REST_FORWARD_SECRET_<NAME>" credential:"smtp2rest_forward_secret_<name>" doc:"The secret with which events are signed. It is not set in the file."`
	// Its content is in Secret.
	SecretFile string `toml:"secret_file" check:"secret file" doc:"A file that contains only this secret. The path begins with /, or with ./ for the directory of this file."`
}

// Secrets returns the secrets with which events may be signed.
func (w Webhook) Secrets() []string {
	var all []string
	for _, s := range []Secret{w.Secret, w.PreviousSecret} {
		if s.IsSet() {
			all = append(all, s.Reveal())
		}
	}
	return all
}
