package main

import (
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/sendmail"
)

// checkAliases is newaliases.
func checkAliases(t *terminal, c sendmail.Command) error {
	return sendmail.Errorf(sendmail.Unavailable, "there are no aliases")
}
