package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/serve"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

const unitsDir = "../../systemd"

// unit is the settings of a unit file, in order, by name.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(unitsDir, name))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return settings
}

// The unit and the program are two files that must say the same.
func TestTheUnitAgreesWithTheProgram(t *testing.T) {
	u := unit(t, "smtp2rest.service")
	one := func(key string) string {
		t.Helper()
		if len(u[key]) != 1 {
			t.Fatalf("%s is there %d times", key, len(u[key]))
		}
		return u[key][0]
	}
	span := func(key string) time.Duration {
		t.Helper()
		d, err := settings.ParseDuration(one(key) + "s")
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return d
	}
	for _, code := range []int{terminal.ExitUsage, terminal.ExitConfig} {
		if !slices.Contains(strings.Fields(one("RestartPreventExitStatus")), strconv.Itoa(code)) {
			t.Errorf("exit code %d makes systemd start it again", code)
		}
	}
	if slices.Contains(strings.Fields(one("RestartPreventExitStatus")), strconv.Itoa(terminal.ExitFailed)) {
		t.Error("a failure that may mend itself is final")
	}
	if stop := span("TimeoutStopSec"); stop < serve.DrainTime+10*time.Second {
		t.Errorf("systemd kills it after %s; mail in flight is given %s, and closing takes its time", stop, serve.DrainTime)
	}
	if w := span("WatchdogSec"); w < 30*time.Second {
		t.Errorf("with a watchdog of %s a storage that is slow for once ends the process", w)
	}
	if one("Type") != "notify" {
		t.Error("systemd does not wait until clients can connect")
	}
	state := "/var/lib/" + one("StateDirectory")
	if state != reach.ServiceDir {
		t.Errorf("the queue is in %s, and the commands look in %s", state, reach.ServiceDir)
	}
	for _, key := range []string{"ExecStart", "ExecReload"} {
		line := strings.Fields(one(key))
		if err := parseable(line[1:]); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if socket := admin.SocketIn(state); !strings.HasSuffix(one("ExecReload"), " --socket "+socket) {
		t.Errorf("ExecReload does not use %s", socket)
	}
	var names []string
	for _, line := range u["LoadCredential"] {
		name, _, _ := strings.Cut(line, ":")
		names = append(names, name)
	}
	slices.Sort(names)
	if known := config.Credentials(); !slices.Equal(names, known) {
		t.Errorf("the unit loads the credentials %v, the program reads %v", names, known)
	}
}

// The example in the socket's file is a listener that finds its sockets.
func TestTheSocketAgreesWithTheProgram(t *testing.T) {
	u := unit(t, "smtp2rest.socket")
	text, err := os.ReadFile(filepath.Join(unitsDir, "smtp2rest.socket"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^#   (address = "systemd:(.*)")$`).FindSubmatch(text)
	if m == nil || len(u["FileDescriptorName"]) != 1 || string(m[2]) != u["FileDescriptorName"][0] {
		t.Fatalf("its example is %q, its sockets are called %q", m, u["FileDescriptorName"])
	}
	r := harness.Execute(t, harness.Environ(t, "NEXUSPROMAIL_API_KEY="+harness.PlantedKey, "FROM_EMAIL=hello@mail.example.com"), "",
		"check", "--config", harness.ConfigFile(t, "[[listener]]\n"+string(m[1])+"\n"))
	if r.Code != 0 {
		t.Errorf("%+v", r)
	}
}

// systemd itself reads the units, and finds little to hold against them.
func TestSystemdAnalyze(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("systemd-analyze is not on this machine, which comes with systemd: %v", err)
	}
	dir := t.TempDir()
	for _, name := range []string{"smtp2rest.service", "smtp2rest.socket", "smtp2rest-local.socket"} {
		text, err := os.ReadFile(filepath.Join(unitsDir, name))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("/usr/local/bin/smtp2rest"), []byte(harness.Binary(t)))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	service := filepath.Join(dir, "smtp2rest.service")
	out, err := exec.Command(tool, "verify", "--man=no", service, filepath.Join(dir, "smtp2rest.socket"), filepath.Join(dir, "smtp2rest-local.socket")).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err = exec.Command(tool, "security", "--offline=true", "--no-pager", "--threshold=15", service).CombinedOutput()
	m := regexp.MustCompile(`exposure level for smtp2rest.service: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("security: %v\n%s", err, out)
	}
	if exposure, err := strconv.ParseFloat(string(m[1]), 64); err != nil || exposure > 1.5 {
		t.Errorf("the exposure is %s (%v)\n%s", m[1], err, out)
	}
}
