package endpoint

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Writable makes sure that the secret can be kept before it is asked for.
func Writable(file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".webhook-secret-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Keep writes the secret, and the one before it where that is to go. said is what
// became of that.
func Keep(file, previous, secret string) (said string, err error) {
	old, err := os.ReadFile(file)
	if err == nil && len(bytes.TrimSpace(old)) > 0 {
		if previous == "" {
			said = " The one before it is gone: name webhook.previous_secret_file to keep it the next time."
		} else {
			if err := replaceFile(previous, string(old)); err != nil {
				return "", err
			}
			said = " The one before it is in " + previous + "."
		}
	}
	return said, replaceFile(file, secret+"\n")
}

// replaceFile writes a file of mode 0600 in one step, so that nobody reads a
// half of it, and it outlives a power cut.
func replaceFile(name, content string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".webhook-secret-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, content)
	err = errors.Join(err, f.Sync(), f.Close())
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
