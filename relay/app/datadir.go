package app

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// dataDirError says of what cannot be opened which setting leads there, and
// what helps.
func (p *parts) dataDirError(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w; name a directory that this user may write to, by queue.data_dir or SMTP2REST_DATA_DIR", err)
	case errors.Is(err, syscall.ENOSPC):
		err = fmt.Errorf("%w; make room on its disk, or name a directory on another one, by queue.data_dir or SMTP2REST_DATA_DIR", err)
	case errors.Is(err, syscall.ENOTDIR):
		err = fmt.Errorf("%w; a file is in the way: name a directory, by queue.data_dir or SMTP2REST_DATA_DIR", err)
	case errors.Is(err, syscall.EROFS):
		err = fmt.Errorf("%w; in a container, mount a volume there", err)
	}
	return fmt.Errorf("queue.data_dir %s: %w", p.config().Queue.DataDir, err)
}

// warnOfVolatile tells of a data directory that does not outlive the machine or
// the container: what is accepted into it is not kept as an operator expects.
func (p *parts) warnOfVolatile() {
	dir := p.config().Queue.DataDir
	if p.opt.Scratch {
		return
	}
	if why := endsWith(dir); why != "" {
		p.opt.Log.Warn("the queue will not outlive "+why+": name a directory on a disk by queue.data_dir or SMTP2REST_DATA_DIR, in a container a volume", "data_dir", dir)
	}
}
