package app

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

// redirections says whose mail goes to whom in place of its recipients.
func redirections(c *config.Config) (list []string) {
	if c.RedirectAll != "" {
		return []string{"all mail goes to " + c.RedirectAll}
	}
	for _, a := range c.Accounts {
		if a.RedirectAll != "" {
			list = append(list, "the mail of account "+a.Name+" goes to "+a.RedirectAll)
		}
	}
	for _, l := range c.Listeners {
		if l.RedirectAll != "" {
			list = append(list, "what comes in at "+l.Address+" goes to "+l.RedirectAll)
		}
	}
	for _, u := range c.Users {
		if u.RedirectAll != "" {
			list = append(list, "the mail of "+u.Name+" goes to "+u.RedirectAll)
		}
	}
	return list
}

// prepareRedirections logs a warning when a reload changes where mail is redirected to.
func (d *daemon) prepareRedirections(list []string) (apply func(), err error) {
	return func() {
		d.tellRedirections(list)
		if len(list) == 0 {
			d.opt.Log.Warn("mail is not redirected any more: it goes to its recipients")
		}
	}, nil
}

func (d *daemon) tellRedirections(list []string) {
	for _, one := range list {
		d.opt.Log.Warn("REDIRECTED: " + one + ", and not to its recipients (redirect_all)")
	}
}

// redirectWarnings tell of redirections.
func redirectWarnings(c *config.Config) []admin.Warning {
	list := redirections(c)
	if len(list) == 0 {
		return nil
	}
	const most = 5
	if len(list) > most {
		list = append(list[:most:most], "and more")
	}
	return []admin.Warning{{Level: admin.LevelWarning, Cause: admin.CauseRedirected, What: "mail is redirected and does not reach its recipients",
		Why: strings.Join(list, "; "), Do: "remove redirect_all from the configuration and reload when real mail is to be sent"}}
}
