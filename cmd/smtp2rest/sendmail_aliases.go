package main

import (
	"fmt"
	"strings"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/sendmail"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

// daemonConfig is the daemon's configuration where the unit that we ship has it.
const daemonConfig = "/etc/smtp2rest/config.toml"

// checkAliases is newaliases: there is no database to build, as the daemon
// reads the file by itself, but a mistake is better told here than in its log.
func checkAliases(t *terminal, c sendmail.Command) error {
	path := t.serviceConfig()
	cfg, err := loadForeign(t, config.Source{Path: path, FallbackSender: "default-sender@example.com"})
	if err != nil {
		return sendmail.Errorf(sendmail.Config, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	file := cfg.Addresses.AliasFile
	if c.AliasesFile != "" {
		file = c.AliasesFile
	}
	if file == "" && path == "" {
		return sendmail.Errorf(sendmail.Config, "there is no %s, so no aliases were checked; -oAFILE names a file", daemonConfig)
	}
	if file == "" {
		_, err := fmt.Fprintf(t.out, "There is no alias_file in the configuration; the aliases in it are good: %d.\n", len(cfg.Addresses.Aliases))
		return err
	}
	text, err := config.ReadAliases(file, nil)
	if err != nil {
		return sendmail.Errorf(sendmail.Config, "%s: %s", file, err)
	}
	table, err := cfg.Addresses.Table(text)
	if err != nil {
		return sendmail.Errorf(sendmail.Config, "%s: %s", file, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	_, err = fmt.Fprintf(t.out, "%s: all good; aliases: %d.\n", printable(file), table.Len())
	return err
}
