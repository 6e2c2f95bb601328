package config

import (
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

//go:generate go test -run ^(TestExampleFile|TestReferenceDocument)$ -update .

// setting is one line of the table: where a value is in the file, where it
// goes, and what a person needs to know of it.
type setting struct {
	path    string // in the file
	value   value
	def     any    // as TOML gives it: string, int64, float64, bool or []any; nil is none
	defWord string // the default in words, when it is worked out from something else
	example string // TOML shown in config.example.toml when def says too little
	env     string // variable that comes before the file
	doc     string

	origin string // filled in by Load
}

// section explains one table of the file.
type section struct{ name, doc string }

// sections are the tables of the file, in the order of config.example.toml.
// The nameless one holds the settings above the first table.
func sections() []section {
	return []section{
		{"", ""},
		{"api", "The provider's REST API. The key is not set here: it comes from the environment\n" +
			"variable NEXUSPROMAIL_API_KEY, from the file that NEXUSPROMAIL_API_KEY_FILE or\n" +
			"key_file names, or from the systemd credential nexuspromail_api_key."},
		{"sender", "Who the mail comes from. The provider sends only for domains verified with it."},
		{"mail", "What becomes of the parts of a mail that the API's documentation has no field for."},
		{"delivery", "How mail is tried."},
		{"queue", "Mail that could not be sent while its client waited."},
		{"bounce", "How senders learn what could not be delivered."},
		historySection(),
		{"warming", "Hold a new domain to a number of mails that grows every day (docs/warming.md). What\n" +
			"is over it waits in the queue. There is none by default; repeat the table for more."},
		{"listener", "One address to listen on. Repeat the table for more of them."},
		{"rules", "Whom mail may be from and to, for everybody. A list has addresses, \"@example.com\" for a\n" +
			"domain, \"@.example.com\" for it and all below it, and * for any characters; \"<>\" is the\n" +
			"null sender of bounces. What is denied is refused, and what is not among the allowed,\n" +
			"if any are. Listeners and users have such lists as well (docs/access.md)."},
		{"user", "One user who may log in. There is none by default; repeat the table for more."},
		{"limits", "What clients can use at most."},
		{"admin", "How the relay is watched and worked with: by its own commands, a supervisor, Prometheus.\n" +
			"The token comes from the environment variable SMTP2REST_ADMIN_TOKEN, from the file that\n" +
			"SMTP2REST_ADMIN_TOKEN_FILE or token_file names, or from the systemd credential\n" +
			"smtp2rest_admin_token."},
		{"log", "The program's own log, on standard error."},
		{"suppression", "Addresses that must not be sent to (docs/suppression.md)."},
		{"webhook", "Events from the provider. The secret comes from the environment variable\n" +
			"WEBHOOK_SECRET, from the file that WEBHOOK_SECRET_FILE or secret_file names, or\n" +
			"from the systemd credential webhook_secret."},
	}
}

// settingsOf is the table for everything but the tables that are repeated.
func settingsOf(c *Config) []setting {
	s := []setting{
		{path: "hostname", value: textValue{&c.Hostname, checkHostname}, defWord: "the name of this machine", example: `"relay.example.com"`,
			doc: "How the relay calls itself to SMTP clients."},
		{path: "users_file", value: textValue{&c.UsersFile, nil}, def: "",
			doc: "File of users who may log in, besides [[user]]: lines of name:hash, as htpasswd -B and\n'smtp2rest hash-password' write them. It is read again when it changes."},
	}
	s = append(s, addressSettings(&c.Addresses)...)
	s = append(s, apiSettings(&c.API)...)
	s = append(s, senderSettings(&c.Sender)...)
	s = append(s, mailSettings(&c.Mail)...)
	s = append(s, setting{path: "delivery.wait", value: timeValue{&c.Delivery.Wait, 0, 5 * time.Minute}, def: "10s",
		doc: "How long a client is made to wait for the API's own verdict on its mail.\n\"0s\" is not at all: all mail goes to the queue."})
	s = append(s, retrySettings(&c.Delivery.Retry)...)
	s = append(s, queueSettings(&c.Queue)...)
	s = append(s, bounceSettings(&c.Bounce)...)
	s = append(s, historySettings(&c.History)...)
	s = append(s, limitSettings(&c.Limits)...)
	s = append(s, adminSettings(&c.Admin)...)
	s = append(s, ruleSettings(&c.Rules, "rules")...)
	s = append(s,
		setting{path: "log.level", value: levelValue{&c.Log.Level}, def: "info",
			doc: "The least important lines that are written: \"debug\", \"info\", \"warn\" or \"error\"."},
		setting{path: "log.format", value: wordValue[string]{&c.Log.Format, []string{"auto", "text", "json"}}, def: "auto",
			doc: "\"text\" for people, \"json\" for programs; \"auto\" is text, and in the systemd journal\nwithout the time that it has already."},
	)
	s = append(s, suppressionSettings(&c.Suppression)...)
	return append(s, webhookSettings(&c.Webhook)...)
}

func apiSettings(a *API) []setting {
	return []setting{
		{path: "api.url", value: textValue{&a.URL, checkURL}, def: nexuspromail.DefaultURL, env: "NEXUSPROMAIL_API_URL",
			doc: "Where the API is."},
		{path: "api.path", value: textValue{&a.Path, checkPath}, def: nexuspromail.DefaultPath,
			doc: "The path of the sending call, below url."},
		{path: "api.allow_insecure", value: flagValue{&a.AllowInsecure}, def: false,
			doc: "Allows an http:// url of another machine, to which the key travels in the clear."},
		{path: "api.key", value: secretValue{&a.Key, apiKey()}, env: apiKey().env,
			doc: "The API key. It is a secret and not set in the file."},
		{path: "api.key_file", value: textValue{&a.KeyFile, checkSecretPath}, def: "",
			doc: "File that holds the API key and nothing else: a path that begins with /, or with\n./ for the directory of this file."},
		{path: "api.timeout", value: timeValue{&a.Timeout, time.Millisecond, 5 * time.Minute}, def: "10s",
			doc: "How long one call may take in all."},
		{path: "api.connect_timeout", value: timeValue{&a.ConnectTimeout, time.Millisecond, 5 * time.Minute}, def: "5s",
			doc: "How much of that connecting may take."},
		{path: "api.ca_file", value: textValue{&a.CAFile, nil}, def: "",
			doc: "File of PEM certificates to trust besides the system's. A relative path starts at\nthe directory of this file."},
		{path: "api.concurrency", value: countValue{&a.Concurrency, 1, 1000}, def: int64(32),
			doc: "How many calls are made at once."},
		{path: "api.rate", value: rateValue{&a.Rate, 0, 100000}, def: 0.0,
			doc: "How many calls a second the account allows. 0 is not known: the relay finds out."},
		{path: "api.burst", value: countValue{&a.Burst, 0, 100000}, def: int64(0),
			doc: "How many calls may follow each other at once after a rest. 0 is a tenth of rate,\nand at least 1."},
		{path: "api.max_retry_after", value: timeValue{&a.MaxRetryAfter, time.Second, 7 * day}, def: "1h",
			doc: "The longest pause that is kept when the API asks for one (Retry-After)."},
	}
}

func senderSettings(s *Sender) []setting {
	return []setting{
		{path: "sender.email", value: textValue{&s.Email, checkEmail}, env: "FROM_EMAIL", example: `"hello@mail.example.com"`,
			doc: "The sender of mail whose own From is in no verified domain, and of the relay's\nown mail. It must be set, here or in the environment."},
		{path: "sender.name", value: textValue{&s.Name, checkText}, def: "", env: "FROM_NAME",
			doc: "The name that goes with it."},
		{path: "sender.domains", value: domainsValue{&s.Domains}, defWord: "the domain of email", example: `["mail.example.com"]`,
			doc: "The domains that are verified with the provider."},
		{path: "sender.foreign", value: wordValue[Foreign]{&s.Foreign, []Foreign{Rewrite, RefuseForeign}}, def: "rewrite",
			doc: "What becomes of mail from other domains: \"rewrite\" sends it from email, with its\nown sender in Reply-To; \"refuse\" refuses it."},
	}
}

func mailSettings(m *Mail) []setting {
	return []setting{
		{path: "mail.attachments", value: wordValue[Attachments]{&m.Attachments, []Attachments{RefuseAttachments, StripAttachments, SendAttachments}}, def: "refuse",
			doc: "Attachments: \"refuse\" the mail; \"strip\" them and say so in its text; or \"send\" them\nin the fields below. The API's documentation names no field: ask the provider."},
		{path: "mail.attachments_field", value: textValue{&m.Fields.Array, checkNeededField}, def: "attachments",
			doc: "With \"send\": the field of the JSON that holds the list of attachments."},
		{path: "mail.attachment_filename", value: textValue{&m.Fields.Filename, checkField}, def: "filename",
			doc: "With \"send\": the field of a list item that holds the file's name. \"\" leaves it out."},
		{path: "mail.attachment_content", value: textValue{&m.Fields.Content, checkNeededField}, def: "content",
			doc: "With \"send\": the field of a list item that holds the content, in base64."},
		{path: "mail.attachment_content_type", value: textValue{&m.Fields.ContentType, checkField}, def: "content_type",
			doc: "With \"send\": the field of a list item that holds the media type. \"\" leaves it out."},
		{path: "mail.attachment_content_id", value: textValue{&m.Fields.ContentID, checkField}, def: "content_id",
			doc: "With \"send\": the field of a list item that holds the Content-ID by which html\nrefers to an image. \"\" leaves it out."},
		{path: "mail.header_field", value: textValue{&m.HeaderField, checkField}, def: "",
			doc: "The field of the JSON that takes further headers, as an object. \"\" is none: the\nAPI's documentation has no such field."},
	}
}
