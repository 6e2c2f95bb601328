package config

import (
	"errors"
	"fmt"
	"io/fs"
)

// unitFiles are where the unit that we ship takes its credentials from
// (LoadCredential=), by their names.
func unitFiles() map[string]string {
	return map[string]string{
		"nexuspromail_api_key":    "/etc/smtp2rest/nexuspromail_api_key",
		"webhook_secret":          "/etc/credstore/smtp2rest_webhook_secret",
		"webhook_secret_previous": "/etc/credstore/smtp2rest_webhook_secret_previous",
		"smtp2rest_admin_token":   "/etc/credstore/smtp2rest_admin_token",
	}
}

// unitFile takes a credential as it is before systemd hands it over.
func (l *loader) unitFile(from secretSource) (Secret, string) {
	if !l.src.Service {
		return Secret{}, ""
	}
	name := from.credentials[0]
	path := unitFiles()[name]
	data, err := l.src.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Secret{}, ""
	}
	if err != nil { // not a problem before the secret is known to be needed
		l.unread[name] = err
		return Secret{}, ""
	}
	l.loose("credential "+name, path)
	return l.secretText("credential "+name, show(path), string(data)), "file " + path + ", the unit's"
}

// ways lists how to set a secret that is not set.
func (l *loader) ways(from secretSource) string {
	name := from.credentials[0]
	switch path := unitFiles()[name]; {
	case !l.src.Service:
		return from.ways()
	case l.unread[name] != nil:
		return fmt.Sprintf("%s, where smtp2rest.service takes it from, cannot be read: %v; try again with sudo", path, cause(l.unread[name]))
	default:
		return from.ways() + fmt.Sprintf(", which smtp2rest.service takes from %s: that file is looked for here as well, and is not there", path)
	}
}
