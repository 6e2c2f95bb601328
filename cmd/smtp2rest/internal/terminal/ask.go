package terminal

import (
	"bufio"
	"context"
	"errors"

	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
)

// ErrNotConfirmed: the answer was not yes.
var ErrNotConfirmed = errors.New("not confirmed; nothing was changed")

// Ask reads one line. Reading from a terminal cannot be ended, so that it is
// left to itself when ctx ends, as the process does then.
func Ask(ctx context.Context, t *Terminal) (string, error) {
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(t.In).ReadString('\n') // the end of input is no yes
		line <- s
	}()
	select {
	case s := <-line:
		return s, nil
	case <-ctx.Done():
		return "", ErrNotConfirmed
	}
}

// errNotAnAge is what is wrong with an age of nothing.
var errNotAnAge = errors.New(`write how long ago, such as "90m" or "2d"`)

// AgeValue is a flag for a time with days, such as 2d.
type AgeValue time.Duration

func (a *AgeValue) Set(s string) error {
	d, err := settings.ParseDuration(s)
	if err == nil && d <= 0 {
		return errNotAnAge
	}
	*a = AgeValue(d)
	return err
}

func (a *AgeValue) String() string {
	if a == nil || *a == 0 {
		return ""
	}
	return settings.FormatDuration(time.Duration(*a))
}

// Type is what the help calls the value.
func (*AgeValue) Type() string { return "age" }
