package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// fake is an Admin of which a test needs one method.
type fake struct {
	Admin
	drop func(context.Context, Filter) (int, error)
	list func(context.Context, Filter) (Page, error)
	raw  func(context.Context, string) (io.ReadCloser, error)
}

func (f fake) Drop(ctx context.Context, in Filter) (int, error)  { return f.drop(ctx, in) }
func (f fake) List(ctx context.Context, in Filter) (Page, error) { return f.list(ctx, in) }
func (f fake) Raw(ctx context.Context, id string) (io.ReadCloser, error) {
	return f.raw(ctx, id)
}

// A kill -9 leaves the socket's file behind.
func TestASocketOfADeadDaemonIsReplaced(t *testing.T) {
	path := socketPath(t)
	ln, err := net.Listen("unix", path)
	must(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, ln.Close())
	if _, err := Dial(t.Context(), path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Dial: %v, want ErrNotRunning", err)
	}
	s := NewServer(ServerOptions{Admin: fake{}, Path: path})
	must(t, s.Start(t.Context()))
	if _, err := Dial(t.Context(), path); err != nil {
		t.Errorf("Dial: %v", err)
	}
	stop(t, s)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is there after Stop: %v", err)
	}
}

func TestASocketOfALivingDaemonIsNotTaken(t *testing.T) {
	_, path := serve(t, New(Options{Queue: openStore(t, t.TempDir())}))
	second := NewServer(ServerOptions{Admin: fake{}, Path: path})
	if err := second.Start(t.Context()); !errors.Is(err, ErrInUse) {
		t.Errorf("Start: %v, want ErrInUse", err)
	}
	stop(t, second)
	c, err := Dial(t.Context(), path)
	must(t, err)
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the first does not answer any more: %v", err)
	}
}

func TestWhatIsNotASocketIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	s := NewServer(ServerOptions{Admin: fake{}, Path: path})
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "left alone") {
		t.Errorf("Start: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file has %q (%v)", b, err)
	}
}

func TestWhatKeepsAClientFromTheDaemon(t *testing.T) {
	if _, err := Dial(t.Context(), socketPath(t)); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "there is no socket") {
		t.Errorf("no socket: %v", err)
	}
	// What the kernel says to others; root, who may run this test, may all.
	err := dialError("/run/x.sock", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)})
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrNotRunning) ||
		err.Error() != "this user may not open the socket /run/x.sock; try again with sudo, or as the daemon's user: permission denied" {
		t.Errorf("no permission: %v", err)
	}
	s := NewServer(ServerOptions{Admin: fake{}, Path: "/tmp/" + strings.Repeat("x", 120)})
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "the path has 125 bytes") {
		t.Errorf("a long path: %v", err)
	}
}

func TestLife(t *testing.T) {
	path := socketPath(t)
	s := NewServer(ServerOptions{Admin: fake{}, Path: path})
	must(t, s.Start(t.Context()))
	if err := s.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	stop(t, s)
	stop(t, s)
	if err := s.Start(t.Context()); err == nil {
		t.Error("started after Stop")
	}
	never := NewServer(ServerOptions{Admin: fake{}, Path: path})
	stop(t, never)
	if err := never.Start(t.Context()); err == nil {
		t.Error("started after Stop before Start")
	}
}

// Stop waits for a call that is under way, and the caller gets its answer.
func TestStopLetsACallEnd(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	s, path := serve(t, fake{drop: func(context.Context, Filter) (int, error) {
		close(begun)
		<-end
		return 7, nil
	}})
	c, err := Dial(t.Context(), path)
	must(t, err)
	answered := make(chan string, 1)
	go func() {
		n, err := c.Drop(t.Context(), Filter{ID: "x"})
		answered <- fmt.Sprint(n, err)
	}()
	<-begun
	// Longer than answers that are complete may take to leave.
	time.AfterFunc(3*time.Second/2, func() { close(end) })
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if got := <-answered; got != "7 <nil>" {
		t.Errorf("the call was answered %s", got)
	}
}

// A call that does not end is cut off when Stop's context ends; so is a
// reader of a mail, which would keep the store from closing.
func TestStopCutsOff(t *testing.T) {
	begun := make(chan struct{})
	closed := make(chan struct{})
	s, path := serve(t, fake{
		drop: func(ctx context.Context, _ Filter) (int, error) {
			close(begun)
			<-ctx.Done()
			return 3, ctx.Err()
		},
		raw: func(context.Context, string) (io.ReadCloser, error) { return endless{closed}, nil },
	})
	c, err := Dial(t.Context(), path)
	must(t, err)
	r, err := c.Raw(t.Context(), "x") // and does not read
	must(t, err)
	defer func() { _ = r.Close() }()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Drop(t.Context(), Filter{ID: "x"})
		failed <- err
	}()
	<-begun
	late, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Stop(late); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop: %v, want context.Canceled", err)
	}
	<-closed
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "ended while it answered") {
		t.Errorf("the call: %v", err)
	}
}

// endless is a mail without an end.
type endless struct{ closed chan struct{} }

func (e endless) Read(p []byte) (int, error) { return len(p), nil }
func (e endless) Close() error               { close(e.closed); return nil }

// Somebody who connects and says nothing must not hold up Stop.
func TestStopDoesNotWaitForTheSilent(t *testing.T) {
	s, path := serve(t, fake{})
	conn, err := net.Dial("unix", path)
	must(t, err)
	defer func() { _ = conn.Close() }()
	// Connections are accepted in their order, so that the silent one is by now.
	if got := request(t, path, "GET / HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 404") {
		t.Errorf("answered %q", got)
	}
	begin := time.Now()
	stop(t, s)
	if took := time.Since(begin); took > time.Second+2*time.Second {
		t.Errorf("took %s", took)
	}
}

// An operator who presses Ctrl-C stops the change between two of its steps.
func TestACallEndsWhenItsCallerHangsUp(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	c := dialed(t, fake{drop: func(ctx context.Context, _ Filter) (int, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := c.Drop(ctx, Filter{ID: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Drop: %v", err)
	}
	<-ended
}

// What was done before an error is known at the other end.
func TestAnErrorKeepsTheCount(t *testing.T) {
	c := dialed(t, fake{drop: func(context.Context, Filter) (int, error) {
		return 500, fmt.Errorf("after some: %w", queue.ErrClosed)
	}})
	n, err := c.Drop(t.Context(), Filter{ID: "x"})
	if n != 500 || !errors.Is(err, queue.ErrClosed) || err.Error() != "after some: the queue is closed" {
		t.Errorf("got %d, %v", n, err)
	}
}

// A mail that ends before its end must not look whole.
func TestRawIsWholeOrFails(t *testing.T) {
	disk := errors.New("the disk is gone")
	c := dialed(t, fake{raw: func(context.Context, string) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("half"), &broken{disk})), nil
	}})
	r, err := c.Raw(t.Context(), "x")
	must(t, err)
	b, err := io.ReadAll(r)
	if string(b) != "half" || err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v", b, err)
	}
	must(t, r.Close())
	// A server that never says that it was all.
	cut := &rawReader{body: io.NopCloser(strings.NewReader("half")), resp: &http.Response{}}
	if _, err := io.ReadAll(cut); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no trailer: %v", err)
	}
}

type broken struct{ err error }

func (b *broken) Read([]byte) (int, error) { return 0, b.err }

// What a daemon does not understand it must not do by halves.
func TestRequestsThatMakeNoSense(t *testing.T) {
	_, path := serve(t, fake{drop: func(context.Context, Filter) (int, error) {
		t.Error("dropped")
		return 0, nil
	}})
	for _, body := range []string{
		"", "x", "[]", `{"all":true} {}`, `{"all":true,"campaign":"x"}`, `{"all":"true"}`,
		`{"all":true,"id":"` + strings.Repeat("x", maxRequest) + `"}`,
	} {
		got := request(t, path, "POST /v1/drop HTTP/1.0\r\nContent-Length: "+fmt.Sprint(len(body))+"\r\n\r\n"+body)
		if !strings.HasPrefix(got, "HTTP/1.0 400") || !strings.Contains(got, `"code":"bad_request"`) {
			t.Errorf("%.40s: answered %q", body, got)
		}
	}
	if got := request(t, path, "GET /v1/drop HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 405") {
		t.Errorf("GET: answered %q", got)
	}
}

func request(t *testing.T, path, text string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, text) // a server that has read enough may close
	b, _ := io.ReadAll(bufio.NewReader(conn))
	return string(b)
}

// A daemon of another version must be named as that.
func TestAnswersOfSomethingElse(t *testing.T) {
	path := socketPath(t)
	ln, err := net.Listen("unix", path)
	must(t, err)
	srv := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() { _ = srv.Close(); <-done }()
	c, err := Dial(t.Context(), path)
	must(t, err)
	_, err = c.Status(t.Context())
	_, err2 := c.Raw(t.Context(), "x")
	for _, err := range []error{err, err2} {
		if err == nil || !strings.Contains(err.Error(), "is of another version: it answered 404 Not Found") {
			t.Errorf("got %v", err)
		}
	}
}

// A long list is read page by page: neither end holds more than one of them.
func TestAllIsBoundedInMemory(t *testing.T) {
	const mails, perMail, mostAtOnce = 25, 100, 1000
	store := openStore(t, t.TempDir())
	batch := make([]queue.Mail, mails)
	for i := range batch {
		to := make([]string, perMail)
		for j := range to {
			to[j] = fmt.Sprintf("%03d.%03d@example.net", i, j)
		}
		batch[i] = mail(fmt.Sprintf("m%03d", i), i, "news@example.com", "x", to...)
	}
	must(t, store.Enqueue(t.Context(), batch...))
	local := New(Options{Queue: store})
	var pages []int
	c := dialed(t, fake{list: func(ctx context.Context, f Filter) (Page, error) {
		page, err := local.List(ctx, f)
		pages = append(pages, len(page.Entries))
		return page, err
	}})
	n := 0
	for e, err := range All(t.Context(), c, Filter{}) {
		must(t, err)
		if want := fmt.Sprintf("%03d.%03d@example.net", n/perMail, n%perMail); e.Recipient != want {
			t.Fatalf("number %d is %s", n, e.Recipient)
		}
		n++
	}
	if n != mails*perMail || len(pages) < 3 || slices.Max(pages) > mostAtOnce {
		t.Errorf("%d of %d in pages of %v", n, mails*perMail, pages)
	}
	if page, err := local.List(t.Context(), Filter{Limit: 1 << 30}); err != nil || len(page.Entries) > mostAtOnce {
		t.Errorf("a page of %d, %v", len(page.Entries), err)
	}
}

// All ends when its reader has enough, and hands on an error as the last thing.
func TestAllEnds(t *testing.T) {
	calls := 0
	a := fake{list: func(context.Context, Filter) (Page, error) {
		if calls++; calls == 2 {
			return Page{}, queue.ErrClosed
		}
		return Page{Entries: make([]Entry, 3), Cursor: "on"}, nil
	}}
	n := 0
	for _, err := range All(t.Context(), a, Filter{}) {
		if n++; n == 4 && !errors.Is(err, queue.ErrClosed) {
			t.Errorf("error %v", err)
		}
	}
	if n != 4 || calls != 2 {
		t.Errorf("%d steps in %d calls", n, calls)
	}
	for range All(t.Context(), a, Filter{}) {
		break
	}
	if calls != 3 {
		t.Errorf("%d calls: a reader that had enough was read on for", calls)
	}
}
