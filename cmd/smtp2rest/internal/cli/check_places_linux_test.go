package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

func TestSocketWarnings(t *testing.T) {
	etc, lib := t.TempDir(), t.TempDir()
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	warned := func(addresses ...string) string {
		cfg := &config.Config{}
		for _, a := range addresses {
			cfg.Listeners = append(cfg.Listeners, smtpd.Listener{Address: a})
		}
		return strings.Join(socketWarnings(cfg, etc, lib), "\n")
	}
	ours, err := os.ReadFile("../../../../systemd/" + localSocket)
	if err != nil {
		t.Fatal(err)
	}
	put(filepath.Join(lib, localSocket), string(ours))
	if said := warned("10.1.0.5:25"); said != "" {
		t.Errorf("while it is not enabled: %s", said)
	}
	put(filepath.Join(etc, "sockets.target.wants", localSocket), "")
	for _, addresses := range [][]string{{"127.0.0.1:2525"}, {"systemd:smtp", "127.0.0.1:2525"}} {
		if said := warned(addresses...); said != "" {
			t.Errorf("%v: %s", addresses, said)
		}
	}
	for _, address := range []string{"127.0.0.1:2526", ":2525", "unix:/run/s", "systemd:smtp"} {
		if said := warned(address); !strings.HasPrefix(said, "systemd opens 127.0.0.1:2525 for the relay (smtp2rest-local.socket)") {
			t.Errorf("%s: %q", address, said)
		}
	}
	put(filepath.Join(etc, localSocket+".d", "override.conf"), "[Socket]\nListenStream=\nListenStream = 10.1.0.5:25\n")
	if said := warned("10.1.0.5:25"); said != "" {
		t.Errorf("with a drop-in: %s", said)
	}
	if said := warned("127.0.0.1:2525"); !strings.Contains(said, "systemd opens 10.1.0.5:25 ") {
		t.Errorf("with a drop-in: %q", said)
	}
}

func TestSpoolWarnings(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	cfg := &config.Config{}
	cfg.Sendmail.Spool, cfg.Queue.DataDir = dir, data
	if said := strings.Join(spoolWarnings(cfg), "\n"); !strings.Contains(said, "sendmail.spool "+dir+": its mode is 0755 and not 3733") && !strings.Contains(said, "its mode is 0700") {
		t.Errorf("%q", said)
	}
	if err := unix.Chmod(dir, 0o3733); err != nil {
		t.Fatal(err)
	}
	if said := spoolWarnings(cfg); len(said) > 0 {
		t.Errorf("%q", said)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(data, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(spoolWarnings(cfg), "\n"); !strings.Contains(said, "belongs to uid 0 and not to the relay's user, uid 65534") {
			t.Errorf("%q", said)
		}
	}
	cfg.Sendmail.Spool = filepath.Join(dir, "none")
	if said := strings.Join(spoolWarnings(cfg), "\n"); !strings.Contains(said, "no such file") {
		t.Errorf("%q", said)
	}
}
