package main

import (
	"errors"
	"fmt"
	"net/smtp"
	"slices"
	"strings"
	"sync"
	"time"
)

// load is a number of clients that each send mail after mail for a time.
type load struct {
	address string
	clients int
	fresh   bool
	mail    []byte
	time    time.Duration
}

// run returns how long each mail took, from MAIL to the last reply. Any other reply than
// 250 is an error.
func (l load) run() ([]time.Duration, error) {
	end := time.Now().Add(l.time)
	all, errs := make([][]time.Duration, l.clients), make([]error, l.clients)
	var wg sync.WaitGroup
	for i := range l.clients {
		wg.Go(func() { all[i], errs[i] = l.client(end) })
	}
	wg.Wait()
	return slices.Concat(all...), errors.Join(errs...)
}

func (l load) client(end time.Time) (waits []time.Duration, err error) {
	var c *smtp.Client
	for time.Now().Before(end) {
		begun := time.Now()
		if c == nil {
			if c, err = smtp.Dial(l.address); err != nil {
				return waits, err
			}
		}
		if err := l.send(c); err != nil {
			return waits, err
		}
		if l.fresh {
			if err := c.Quit(); err != nil {
				return waits, err
			}
			c = nil
		}
		waits = append(waits, time.Since(begun))
	}
	if c != nil {
		err = c.Quit()
	}
	return waits, err
}

func (l load) send(c *smtp.Client) error {
	if err := c.Mail("app@mail.example.com"); err != nil {
		return err
	}
	if err := c.Rcpt("bob@example.net"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(l.mail); err != nil {
		return err
	}
	return w.Close()
}

// sample is a typical mail of a program.
func sample(kind string) ([]byte, error) {
	const header = "From: App <app@mail.example.com>\r\nTo: bob@example.net\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n" +
		"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@mail.example.com>\r\nMIME-Version: 1.0\r\n"
	line := "The quick brown fox jumps over the lazy dog, and there is nothing to add.\r\n"
	switch kind {
	case "text1k":
		return []byte(header + "Content-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat(line, 9)), nil
	case "alt20k":
		html := strings.Repeat("<p class=3D\"x\">"+strings.TrimSuffix(line, "\r\n")+"</p>\r\n", 110)
		return []byte(header + "Content-Type: multipart/alternative; boundary=frontier\r\n\r\n" +
			"--frontier\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat(line, 110) +
			"--frontier\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + html +
			"--frontier--\r\n"), nil
	}
	return nil, fmt.Errorf("there is no mail %q: text1k, alt20k", kind)
}

// figures are the results of one run.
type figures struct {
	rate     float64
	p50, p99 time.Duration
	cpu      time.Duration // of the relay's process, for one mail
	peak     float64       // MiB resident
}

func figuresOf(waits []time.Duration, took, cpu time.Duration, peak float64) figures {
	slices.Sort(waits)
	n := len(waits)
	if n == 0 {
		return figures{}
	}
	return figures{float64(n) / took.Seconds(), waits[n/2], waits[n*99/100], cpu / time.Duration(n), peak}
}

// median returns the median of each figure.
func median(all []figures) figures {
	middle := func(less func(a, b figures) int) figures {
		s := slices.Clone(all)
		slices.SortFunc(s, less)
		return s[len(s)/2]
	}
	by := func(of func(figures) float64) figures {
		return middle(func(a, b figures) int {
			if of(a) < of(b) {
				return -1
			}
			return 1
		})
	}
	return figures{
		by(func(f figures) float64 { return f.rate }).rate,
		by(func(f figures) float64 { return float64(f.p50) }).p50,
		by(func(f figures) float64 { return float64(f.p99) }).p99,
		by(func(f figures) float64 { return float64(f.cpu) }).cpu,
		by(func(f figures) float64 { return f.peak }).peak,
	}
}
