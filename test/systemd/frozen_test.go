//go:build unix

package systemd

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// frozenDisk is a file system of its own, and what freezes and thaws it: a write
// to it then neither succeeds nor fails.
func frozenDisk(t *testing.T) (dir string, freeze, thaw func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("it takes root to mount a file system that can be frozen")
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("this machine has no loop device to mount: %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	// Whatever becomes of this process, nothing may hang for ever.
	guard := exec.Command("sh", "-c", `sleep 200; fsfreeze --unfreeze "$1"`, "sh", dir)
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := guard.Start(); err != nil {
		t.Fatal(err)
	}
	frozen := false
	thaw = func() {
		if frozen {
			if out, err := exec.Command("fsfreeze", "--unfreeze", dir).CombinedOutput(); err != nil {
				t.Errorf("fsfreeze: %v\n%s", err, out)
			}
		}
		frozen = false
	}
	t.Cleanup(func() { thaw(); _ = syscall.Kill(-guard.Process.Pid, syscall.SIGKILL); _ = guard.Wait() })
	return dir, func() {
		if out, err := exec.Command("fsfreeze", "--freeze", dir).CombinedOutput(); err != nil {
			t.Skipf("this file system cannot be frozen: %v\n%s", err, out)
		}
		frozen = true
	}, thaw
}

// A loop within the process that is truly stuck: the disk neither writes nor
// fails. The service manager hears no more that the daemon is alive, supervisors
// are told why, and when the disk is back the mail that was being handed over is
// answered, and nothing needed a restart.
func TestADiskThatHangs(t *testing.T) {
	harness.OnlyAll(t, "takes more than a minute")
	disk, freeze, thaw := frozenDisk(t)
	_, env, _ := harness.SandboxProcess(t, "--key", harness.PlantedKey)
	s := newSupervisor(t)
	page := "127.0.0.1:" + harness.FreePort(t)
	file := harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\nmin_free = \"0B\"\n[admin]\naddress = \""+page+"\"\n[delivery]\nwait = \"0s\"\n")
	p := harness.Launch(t, harness.Environ(t, append(env, "NOTIFY_SOCKET="+s.path, "WATCHDOG_USEC=4000000", "SMTP2REST_DATA_DIR="+disk)...), "serve", "--config", file)
	_, address, _ := strings.Cut(s.want("READY=1"), "STATUS=taking mail on ")
	livez := func() (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + page + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if code, said := livez(); code != http.StatusOK {
		t.Fatalf("at the start: %d %s", code, said)
	}
	mail := harness.Dial(t, address)
	_ = mail.Conn.SetDeadline(time.Now().Add(2 * harness.Patience))
	mail.Open("bob@example.net")
	freeze()
	if _, err := mail.Conn.Write(append(harness.Letter("bob@example.net", "s"), ".\r\n"...)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for s.next(10*time.Second) != "" { // pings, while it may still be a slow disk
		if time.Since(began) > 2*time.Minute {
			t.Fatal("the watchdog is told for two minutes that all is well")
		}
	}
	t.Logf("the last ping came %s after the disk froze", (time.Since(began) - 10*time.Second).Round(time.Second))
	if code, said := livez(); code != http.StatusServiceUnavailable || !strings.Contains(said, "hangs") {
		t.Errorf("/livez says %d %s", code, said)
	}
	if !strings.Contains(p.Err.String(), "its watchdog is not notified") {
		t.Error("the log does not say that the watchdog is not told")
	}
	thaw()
	s.want("WATCHDOG=1")
	mail.Do("", "250 2.0.0 queued")
	if code, said := livez(); code != http.StatusOK {
		t.Errorf("after it /livez says %d %s", code, said)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	http.DefaultClient.CloseIdleConnections()
}
