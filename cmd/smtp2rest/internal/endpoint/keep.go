package endpoint

import (
	"bytes"
	"errors"
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
			if err := replaceFile(previous, file, string(old)); err != nil {
				return "", err
			}
			said = " The one before it is in " + previous + "."
		}
	}
	return said, replaceFile(file, file, secret+"\n")
}

// replaceFile writes a file in one step, so that nobody reads a half of it, and
// it outlives a power cut. Its group and mode are those of like, so that who
// was let read the secret before may read the next; 0600 where like is not there.
func replaceFile(name, like, content string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".webhook-secret-*") // with mode 0600
	if err != nil {
		return err
	}
	err = errors.Join(asBefore(f, like), writeAll(f, content), f.Sync(), f.Close())
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
