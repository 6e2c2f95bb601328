package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/spool"
)

// spoolWarnings say what is wrong with the directory in which sendmail keeps mail.
func spoolWarnings(cfg *config.Config) (warnings []string) {
	dir := cfg.Sendmail.Spool
	if dir == spool.Off {
		return nil
	}
	wrong, err := spool.Check(dir, relayUser(cfg))
	switch {
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, fs.ErrNotExist) && dir == spool.DefaultDir:
		return nil // sendmail keeps nothing on this machine
	case err != nil:
		wrong = []string{err.Error()}
	}
	for _, one := range wrong {
		warnings = append(warnings, fmt.Sprintf("sendmail.spool %s: %s", dir, one))
	}
	return warnings
}

// relayUser is the user who owns the relay's data, or -1 if that is not known.
func relayUser(cfg *config.Config) int {
	if info, err := os.Stat(cfg.Queue.DataDir); err == nil {
		if uid, _, ok := owner.Of(info); ok {
			return uid
		}
	}
	return -1
}

// localSocket is the unit of our package that opens the default listener's address.
const localSocket = "smtp2rest-local.socket"

// socketWarnings tell of an address that systemd opens for the relay, by our unit, and that
// no listener has. etc and lib are where the operator's and our units are.
func socketWarnings(cfg *config.Config, etc, lib string) (warnings []string) {
	if _, err := os.Lstat(filepath.Join(etc, "sockets.target.wants", localSocket)); err != nil {
		return nil // it is not enabled
	}
	listened := map[netip.AddrPort]bool{}
	for _, l := range cfg.Listeners {
		if at, err := netip.ParseAddrPort(l.Address); err == nil {
			listened[at] = true
		}
	}
	for _, address := range socketAddresses(etc, lib) {
		if at, err := netip.ParseAddrPort(address); err == nil && !listened[at] {
			warnings = append(warnings, fmt.Sprintf("systemd opens %s for the relay (%s), and no [[listener]] has this address: clients that connect hear nothing, or a listener on the port of it cannot be opened; "+
				"'systemctl disable --now %s', or 'systemctl edit %s' to have it open another", address, localSocket, localSocket, localSocket))
		}
	}
	return warnings
}

// socketAddresses reads ListenStream= of the unit and of its drop-ins. An empty one removes
// those before (systemd.socket(5)).
func socketAddresses(etc, lib string) (addresses []string) {
	files := []string{filepath.Join(lib, localSocket)}
	if own := filepath.Join(etc, localSocket); exists(own) {
		files[0] = own
	}
	dropIns, _ := filepath.Glob(filepath.Join(etc, localSocket+".d", "*.conf")) // the pattern is right
	for _, file := range append(files, dropIns...) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, "=")
			if strings.TrimSpace(name) != "ListenStream" {
				continue
			}
			if value = strings.TrimSpace(value); value == "" {
				addresses = nil
			} else {
				addresses = append(addresses, value)
			}
		}
	}
	return addresses
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
