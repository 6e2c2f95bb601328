package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/sandbox"
)

// where is where a relay can be reached.
type where struct {
	SMTP    []string `json:"smtp"`
	Webhook string   `json:"webhook,omitempty"`
	DataDir string   `json:"data_dir,omitempty"`
	Sandbox string   `json:"sandbox,omitempty"` // its root; /sandbox/calls has what it got
	API     string   `json:"api"`
}

func whereOf(daemon *app.App, cfg *config.Config) where {
	w := where{SMTP: []string{}, DataDir: cfg.Queue.DataDir, API: cfg.API.URL}
	for _, a := range daemon.Addrs() {
		w.SMTP = append(w.SMTP, a.String())
	}
	if a := daemon.WebhookAddr(); a != nil {
		hook := cfg.Webhook
		hook.Address = a.String()
		w.Webhook = endpointURL(hook)
	}
	return w
}

func announce(t *terminal, daemon *app.App, dataDir, secret string, box *sandbox.Server) {
	smtp := daemon.Addrs()[0].String()
	fmt.Fprintf(t.out, `
  SMTP     %s
  sandbox  %s   (no mail leaves this machine)
  events   %s   (what the sandbox tells of mail it took)

Try, in another terminal:

  export SMTP2REST_DATA_DIR=%s
  %[5]s send --server %[1]s --to bob@example.net
  %[5]s send --server %[1]s --to suppressed@example.net
  %[5]s send --server %[1]s --to hardbounce@example.net
  %[5]s trace bob@example.net
  %[5]s suppressions
  %[5]s status
  curl %[6]s/sandbox/calls
  WEBHOOK_SECRET=%[7]s %[5]s webhook test --url %[3]s

'%[5]s help sandbox' lists the recipients that force an outcome. Stop with Ctrl-C.

`, smtp, box.URL(), box.Webhook().URL, quoted(dataDir), quoted(t.name), origin(box), secret)
}

// quoted is s as one word of a shell.
func quoted(s string) string {
	if regexp.MustCompile(`^[\w./+,:@%-]+$`).MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// origin is the sandbox's address without the path of the API.
func origin(box *sandbox.Server) string { return "http://" + box.Addr() }
