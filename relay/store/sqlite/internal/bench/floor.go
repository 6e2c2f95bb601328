//go:build linux

package main

import (
	"os"
	"syscall"
)

// floor is an append-only file. Callers that wait are written together and
// share one fdatasync, as the store's callers share a commit.
type floor struct {
	f     *os.File
	calls chan floorCall
	ended chan struct{}
}

type floorCall struct {
	body []byte
	done chan error
}

func newFloor(f *os.File) *floor {
	l := &floor{f: f, calls: make(chan floorCall), ended: make(chan struct{})}
	go l.loop()
	return l
}

func (l *floor) append(body []byte) error {
	c := floorCall{body: body, done: make(chan error, 1)}
	l.calls <- c
	return <-c.done
}

func (l *floor) stop() {
	close(l.calls)
	<-l.ended
}

func (l *floor) loop() {
	defer close(l.ended)
	var buf []byte
	var group []floorCall
	for c := range l.calls {
		buf, group = append(buf[:0], c.body...), append(group[:0], c)
	gather:
		for len(group) < 256 {
			select {
			case c, ok := <-l.calls:
				if !ok {
					break gather
				}
				buf, group = append(buf, c.body...), append(group, c)
			default:
				break gather
			}
		}
		_, err := l.f.Write(buf)
		if err == nil {
			err = syscall.Fdatasync(int(l.f.Fd()))
		}
		for _, c := range group {
			c.done <- err
		}
	}
}
