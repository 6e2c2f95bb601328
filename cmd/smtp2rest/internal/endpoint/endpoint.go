// Package endpoint has what the webhook commands need of the endpoint for the
// provider's events: its URL, the file of the secret that signs the events, and a
// sample event that is sent as the provider would. relay/webhook is the endpoint.
package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
)

// callTime bounds a call.
const callTime = 15 * time.Second

// URL returns the configured endpoint as this machine reaches it.
func URL(w config.Webhook) string {
	host, port, _ := net.SplitHostPort(w.Address) // config has checked it
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	scheme := "http"
	if w.CertFile != "" {
		scheme = "https"
	}
	return (&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port), Path: w.Path}).String()
}

// An Answer is what an endpoint answers to an event.
type Answer struct {
	Code   int
	Status string
	Taken  bool
	Took   time.Duration
}

// SendSample sends an event that changes nothing.
func SendSample(ctx context.Context, events provider.Events, target, secret string, extraCAs []byte) (Answer, error) {
	header, body := events.Sample(secret, time.Now())
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header = header
	start := time.Now()
	resp, text, err := httpcall.Once(req, extraCAs)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", target, err)
	}
	return Answer{
		Code: resp.StatusCode, Status: resp.Status, Took: time.Since(start),
		Taken: resp.StatusCode == http.StatusOK && len(text) == 0,
	}, nil
}

// Writable checks that a secret can be written to a file, before it is asked for.
func Writable(file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".webhook-secret-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Keep writes the secret to file, and the one that was there to previous, unless that
// is "". It reports whether there was one.
func Keep(file, previous, secret string) (replaced bool, err error) {
	old, err := os.ReadFile(file)
	replaced = err == nil && len(bytes.TrimSpace(old)) > 0
	if replaced && previous != "" {
		if err := replaceFile(previous, file, string(old)); err != nil {
			return false, err
		}
	}
	return replaced, replaceFile(file, file, secret+"\n")
}

// replaceFile writes a file in one step, so that nobody reads a part of it, and so that
// it survives a power cut. It gets the owner, group and mode of like, so that whoever
// could read the old secret can read the new one; 0600 if there is no like.
func replaceFile(name, like, content string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".webhook-secret-*") // with mode 0600
	if err != nil {
		return err
	}
	_, written := io.WriteString(f, content)
	err = errors.Join(copyAccess(f, like), written, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// copyAccess gives a new file the owner, group and mode of another.
func copyAccess(f *os.File, like string) error {
	info, err := os.Stat(like)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// Where no owner is known, a new file has the access list of its directory.
	if uid, gid, ok := owner.Of(info); ok {
		if err := f.Chown(uid, gid); errors.Is(err, fs.ErrPermission) {
			return nil // it stays readable by this user alone
		} else if err != nil {
			return err
		}
	}
	return f.Chmod(info.Mode().Perm() & 0o640) // never readable by others
}
