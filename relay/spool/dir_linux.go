package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smtp2rest/smtp2rest/relay"
)

const (
	unfinished = 0o600 // of a file that is being written
	finished   = 0o640

	asidePrefix   = "bad-"         // of the names of files that are no mail
	unfinishedFor = 24 * time.Hour // until the file of a sendmail that was killed is removed
	asideFor      = 30 * 24 * time.Hour

	// mostListed bounds the files that are known at once: of many users, each has one at
	// least. See perOwner.
	mostListed = 20_000
)

// Keep writes a mail into a directory and returns its id. When it returns nil, the mail is
// on stable storage. After an error nothing of it is there.
func Keep(path string, m Mail, now time.Time) (id string, err error) {
	content, err := encode(m)
	if err != nil {
		return "", err
	}
	dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(dir) }()
	var space unix.Statfs_t
	if err := unix.Statfs(path, &space); err == nil && int64(space.Bavail)*space.Bsize < int64(len(content))+KeepFree {
		return "", fmt.Errorf("the disk of %s has less than %d MiB left", path, KeepFree>>20)
	}
	id = nameOf(now, uint32(os.Geteuid()), content)
	fd, err := unix.Openat(dir, id, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, unfinished)
	if err != nil {
		return "", &fs.PathError{Op: "create", Path: path + "/" + id, Err: err}
	}
	f := os.NewFile(uintptr(fd), path+"/"+id)
	err = errors.Join(fill(f, dir, path, content), f.Close())
	if err != nil {
		_ = unix.Unlinkat(dir, id, 0)
		return "", err
	}
	return id, nil
}

// fill writes the content and makes it and the name durable.
func fill(f *os.File, dir int, path string, content []byte) error {
	var file, in unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &file), unix.Fstat(dir, &in)); err != nil {
		return err
	}
	if file.Uid != in.Uid && file.Gid != in.Gid {
		return fmt.Errorf("%s gives files no group by which the relay could read them; it needs mode 3733", path)
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Chmod(finished); err != nil {
		return err
	}
	// Who must not list the directory cannot sync it either. Then all of its file system
	// is synced, which holds the new name as well.
	open, err := os.Open(path)
	if err != nil {
		return unix.Syncfs(int(f.Fd()))
	}
	return errors.Join(f.Sync(), open.Sync(), open.Close())
}

// Check returns what is wrong with a directory in which the relay's user, with this uid,
// finds mail; -1 is a user who is not known. It returns an error if the directory cannot be looked at, such as
// fs.ErrNotExist.
func Check(path string, uid int) (wrong []string, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{"it is no directory"}, nil
	}
	var is unix.Stat_t
	if err := unix.Lstat(path, &is); err != nil {
		return nil, err
	}
	if uid >= 0 && int(is.Uid) != uid {
		wrong = append(wrong, fmt.Sprintf("it belongs to uid %d and not to the relay's user, uid %d", is.Uid, uid))
	}
	for _, bit := range []struct {
		bits, want uint32
		says       string
	}{
		{unix.S_ISGID, unix.S_ISGID, "without the set-group-ID bit the relay cannot read the mail of others"},
		{unix.S_ISVTX, unix.S_ISVTX, "without the sticky bit users can remove each other's mail"},
		{0o003, 0o003, "other users cannot keep mail in it"},
		{0o004, 0, "everybody can see who keeps mail in it, and when"},
	} {
		if is.Mode&bit.bits != bit.want {
			wrong = append(wrong, fmt.Sprintf("its mode is %04o and not 3733: %s", is.Mode&0o7777, bit.says))
		}
	}
	return wrong, nil
}

// dir is a directory from which mail is handed over.
type dir struct {
	*os.File
	path string
}

func open(path string) (*dir, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var is unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &is); err != nil || int(is.Uid) != os.Geteuid() {
		return nil, errors.Join(err, ErrNotOurs, f.Close())
	}
	// What cannot be removed must not be handed over.
	if err := unix.Faccessat(int(f.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return nil, errors.Join(fmt.Errorf("the relay cannot remove files there: %w", err), f.Close())
	}
	return &dir{f, path}, nil
}

// entry is a file that has the name and the mode of a mail.
type entry struct {
	name string
	made time.Time
	uid  uint32
}

// listing is what is in a directory.
type listing struct {
	owners [][]entry // those of each user, the oldest first
	mails  int
	oldest time.Time
	aside  int // files that are no mail
}

// list looks through the directory. It removes files that nobody will finish.
func (d *dir) list(now time.Time) (listing, error) {
	var l listing
	by := map[uint32][]entry{}
	known := 0
	if _, err := d.Seek(0, io.SeekStart); err != nil {
		return l, err
	}
	for {
		names, err := d.Readdirnames(1000)
		for _, name := range names {
			e, ok := d.look(name, now, &l)
			if !ok {
				continue
			}
			l.mails++
			if l.oldest.IsZero() || e.made.Before(l.oldest) {
				l.oldest = e.made
			}
			own := by[e.uid]
			if known >= mostListed && len(own) > 0 {
				continue
			}
			own = append(own, e)
			known++
			if len(own) > 2*perOwner {
				own = first(own)
				known -= perOwner + 1
			}
			by[e.uid] = own
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return l, err
		}
	}
	for _, own := range by {
		l.owners = append(l.owners, first(own))
	}
	return l, nil
}

// first returns the oldest entries of one user.
func first(own []entry) []entry {
	slices.SortFunc(own, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return own[:min(len(own), perOwner)]
}

// look reports whether a name is that of a mail. It counts what was set aside.
func (d *dir) look(name string, now time.Time, l *listing) (entry, bool) {
	made, isID := relay.IDTime(name)
	isAside := strings.HasPrefix(name, asidePrefix)
	var is unix.Stat_t
	if !isID && !isAside || unix.Fstatat(int(d.Fd()), name, &is, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return entry{}, false
	}
	age := now.Sub(time.Unix(is.Mtim.Unix()))
	switch perm := is.Mode & 0o777; {
	case isAside && age > asideFor, isID && perm == unfinished && age > unfinishedFor:
		_ = unix.Unlinkat(int(d.Fd()), name, 0)
		return entry{}, false
	case isAside:
		l.aside++
		return entry{}, false
	case perm == unfinished && is.Mode&unix.S_IFMT == unix.S_IFREG:
		return entry{}, false
	}
	return entry{name, made, is.Uid}, true
}

// read returns the mail of an entry. A file that everybody may have made is opened without
// following a link and without waiting for a FIFO.
func (d *dir) read(e entry) (Mail, error) {
	fd, err := unix.Openat(int(d.Fd()), e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENXIO) { // a link, not for us, a socket
		return Mail{}, ErrNotWhole
	}
	if err != nil {
		return Mail{}, &fs.PathError{Op: "open", Path: d.path + "/" + e.name, Err: err}
	}
	f := os.NewFile(uintptr(fd), e.name)
	defer func() { _ = f.Close() }()
	var is unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil {
		return Mail{}, err
	}
	// A second name would be that of a file elsewhere.
	if is.Mode&unix.S_IFMT != unix.S_IFREG || is.Nlink != 1 || is.Mode&0o777 != finished || is.Size > MaxBytes {
		return Mail{}, ErrNotWhole
	}
	content := make([]byte, is.Size)
	if _, err := io.ReadFull(f, content); err != nil {
		return Mail{}, ErrNotWhole
	}
	return decode(e.name, is.Uid, content)
}

// remove removes a mail that was handed over.
func (d *dir) remove(e entry) error {
	err := unix.Unlinkat(int(d.Fd()), e.name, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: d.path + "/" + e.name, Err: err}
	}
	return d.Sync()
}

// setAside gives a file that is no mail a name under which it is not looked at again.
func (d *dir) setAside(e entry) error {
	return unix.Renameat(int(d.Fd()), e.name, int(d.Fd()), asidePrefix+e.name)
}
