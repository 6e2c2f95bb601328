//go:build !linux

package spool

import (
	"errors"
	"time"
)

const asidePrefix = "bad-"

// Keep fails: only on Linux the relay can read mail that others keep.
func Keep(string, Mail, time.Time) (string, error) { return "", errors.ErrUnsupported }

// Check fails as Keep does.
func Check(string, int) ([]string, error) { return nil, errors.ErrUnsupported }

type dir struct{ path string }

type entry struct {
	name string
	made time.Time
	uid  uint32
}

type listing struct {
	owners [][]entry
	mails  int
	oldest time.Time
	aside  int
}

func open(string) (*dir, error) { return nil, errors.ErrUnsupported }

func (d *dir) list(time.Time) (listing, error) { return listing{}, errors.ErrUnsupported }
func (d *dir) read(entry) (Mail, error)        { return Mail{}, errors.ErrUnsupported }
func (d *dir) remove(entry) error              { return errors.ErrUnsupported }
func (d *dir) setAside(entry) error            { return errors.ErrUnsupported }
func (d *dir) Close() error                    { return nil }
