package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/forward"
)

// maxForwards bounds the endpoints: each event is kept once for each.
const maxForwards = 20

func checkForwardName(s string) error {
	if s == "" || len(s) > 32 || s[0] == '-' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("found %s; write at most 32 small letters, digits and hyphens, as in \"crm\"", settings.Show(s))
	}
	return nil
}

func checkEventType(s string) error {
	types := forward.Types()
	if slices.Contains(types, s) {
		return nil
	}
	if near := settings.Nearest(s, types); near != "" {
		return fmt.Errorf("found %s; did you mean %s?", settings.Show(s), settings.Quote(near))
	}
	return fmt.Errorf("found %s; the types are %s", settings.Show(s), strings.Join(types, ", "))
}

// checkHeaderName accepts the names of RFC 5322 section 2.2.
func checkHeaderName(s string) error {
	if s == "" || len(s) > 100 || strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) >= 0 {
		return fmt.Errorf("found %s; write the name of a header field without its colon, as in \"X-Order-Id\"", settings.Show(s))
	}
	switch strings.ToLower(s) {
	case "bcc", "resent-bcc":
		return errors.New("found Bcc, which nobody but its recipients may see")
	}
	return nil
}

// forwardAt returns the path of a setting of the i-th endpoint.
func (l *loader) forwardAt(i int, name string) string {
	return settings.Numbered("forward", i, len(l.cfg.Forwards)) + "." + name
}

// KeptHeaders are the header fields that some endpoint is told, and so the history keeps.
func (c *Config) KeptHeaders() []string {
	var names []string
	for _, f := range c.Forwards {
		for _, name := range f.Headers {
			if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (l *loader) validateForwards() {
	all := l.cfg.Forwards
	if len(all) > maxForwards {
		l.problem("forward", "there are %d endpoints, and %d at most", len(all), maxForwards)
		return
	}
	for i := range all {
		l.validateForward(i)
	}
	if len(all) == 0 {
		return
	}
	switch {
	case l.cfg.Queue.Mode == NoQueue:
		l.problem("forward", `is there, and queue.mode is "none": events are kept beside the queue until they are posted; change it, or leave the table out`)
	case l.cfg.Store.URL.IsSet():
		l.problem("forward", "is there, and store.url is set: a database cannot keep events until they are posted; leave [[forward]] out, or leave store.url out and keep the queue in queue.data_dir")
	case l.cfg.History.Keep == 0:
		l.problem("forward", `is there, and history.keep is "0s": events are made of what the history records; change it, or leave the table out`)
	}
}

func (l *loader) validateForward(i int) {
	f := l.cfg.Forwards[i]
	path := func(name string) string { return l.forwardAt(i, name) }
	switch {
	case l.bad[path("name")]:
		return
	case f.Name == "":
		l.problem(path("name"), `is not set; write the name of the endpoint, as in "crm"`)
		return
	}
	for _, earlier := range l.cfg.Forwards[:i] {
		if earlier.Name == f.Name {
			l.problem(path("name"), "found %s, which another endpoint has already", settings.Show(f.Name))
			return
		}
	}
	switch {
	case l.bad[path("url")]:
	case f.URL == "":
		l.problem(path("url"), `is not set; write the address to which events are posted, as in "https://crm.example.com/mail-events"`)
	default:
		l.validateHook(path("url"), f.URL, f.AllowInsecure, path("allow_insecure"))
		l.needSecret(path("url"), path("secret"))
	}
	needs := func(e string) bool { return strings.HasPrefix(e, forward.Provider) }
	if slices.ContainsFunc(f.Events, needs) && l.cfg.Webhook.Address == "" {
		l.warn("%s: without webhook.address there are no events of the provider", path("events"))
	}
}
