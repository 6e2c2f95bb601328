package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gomail "github.com/emersion/go-message/mail"
	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// BenchmarkDirect measures mail that the API takes at once, from SMTP to REST
// and back, against the least that does the same: go-smtp, go-message,
// encoding/json and net/http glued together, with no queue, limits, log or
// rate. Load, relay and sandbox share the machine. Compare the two within one
// run:
//
//	go test ./relay/app -run '^$' -bench Direct -benchtime 3s -count 5
func BenchmarkDirect(b *testing.B) {
	for _, size := range []struct {
		name string
		mail string
	}{{"1KiB", plainMail(1 << 10)}, {"20KiB", alternativeMail(20 << 10)}} {
		for _, clients := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("%s/%d/relay", size.name, clients), func(b *testing.B) {
				b.ReportAllocs()
				drive(b, benchRelay(b), size.mail, clients)
			})
			b.Run(fmt.Sprintf("%s/%d/bare", size.name, clients), func(b *testing.B) {
				b.ReportAllocs()
				drive(b, benchBare(b), size.mail, clients)
			})
		}
	}
}

func plainMail(n int) string {
	return "From: a@sandbox.example\r\nTo: b@example.net\r\nSubject: Plain\r\nMessage-ID: <1@x>\r\n\r\n" +
		strings.Repeat("All work and no play makes a dull benchmark.\r\n", n/46)
}

func alternativeMail(n int) string {
	text := strings.Repeat("All work and no play makes a dull benchmark.\r\n", n/3/46)
	html := strings.Repeat("<p>All work and <b>no play</b> makes a dull benchmark.</p>\r\n", 2*n/3/60)
	return "From: a@sandbox.example\r\nTo: b@example.net\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@x>\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=frontier\r\n\r\n" +
		"--frontier\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + text +
		"--frontier\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + html +
		"--frontier--\r\n"
}

// drive has clients hand the mail over b.N times, on connections that they keep.
func drive(b *testing.B, address, mail string, clients int) {
	b.Helper()
	turns := make(chan struct{}, b.N)
	for range b.N {
		turns <- struct{}{}
	}
	close(turns)
	failed := make(chan error, clients)
	b.SetBytes(int64(len(mail)))
	b.ResetTimer()
	for range clients {
		go func() { failed <- submitAll(address, mail, turns) }()
	}
	for range clients {
		if err := <-failed; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
}

func submitAll(address, mail string, turns <-chan struct{}) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	say := func(line, want string) error {
		if _, err := io.WriteString(conn, line); err != nil {
			return err
		}
		answer, err := r.ReadString('\n')
		for err == nil && len(answer) > 3 && answer[3] == '-' {
			answer, err = r.ReadString('\n')
		}
		if err == nil && !strings.HasPrefix(answer, want) {
			err = fmt.Errorf("%.40q was answered %q", line, answer)
		}
		return err
	}
	for _, step := range [][2]string{{"", "220"}, {"EHLO bench\r\n", "250"}} {
		if err := say(step[0], step[1]); err != nil {
			return err
		}
	}
	for range turns {
		for _, step := range [][2]string{
			{"MAIL FROM:<a@sandbox.example>\r\n", "250"}, {"RCPT TO:<b@example.net>\r\n", "250"},
			{"DATA\r\n", "354"}, {mail + ".\r\n", "250"},
		} {
			if err := say(step[0], step[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

func benchSandbox(b *testing.B) string {
	b.Helper()
	box := sandbox.New(sandbox.Options{Key: "planted-key", Keep: -1})
	if err := box.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = box.Stop(context.Background()) })
	return box.URL()
}

func benchRelay(b *testing.B) string { return benchRelayWith(b, "") }

// benchRelayWith adds more to the relay's configuration.
func benchRelayWith(b *testing.B, more string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "config.toml")
	text := fmt.Sprintf("[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nconnections_per_address = 100\n[queue]\ndata_dir = %q\n%s", b.TempDir(), more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	env := map[string]string{"NEXUSPROMAIL_API_KEY": "planted-key", "NEXUSPROMAIL_API_URL": benchSandbox(b), "FROM_EMAIL": "relay@sandbox.example"}
	c, err := config.Load(config.Source{Path: path, NeedAPI: true, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if err != nil {
		b.Fatal(err)
	}
	a := New(Options{Config: c, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))})
	if err := a.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = a.Stop(context.Background()) })
	return a.Addrs()[0].String()
}

// benchBare is the glue that one would write in an afternoon.
func benchBare(b *testing.B) string {
	b.Helper()
	s := smtp.NewServer(&bare{
		url:    benchSandbox(b) + "/v1/transactional/send",
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
	})
	s.Domain = "bare"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

type bare struct {
	url    string
	client *http.Client
}

func (r *bare) NewSession(*smtp.Conn) (smtp.Session, error) { return &bareSession{bare: r}, nil }

type bareSession struct {
	*bare
	from, to string
}

func (s *bareSession) Reset()                                      {}
func (s *bareSession) Logout() error                               { return nil }
func (s *bareSession) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }
func (s *bareSession) Rcpt(to string, _ *smtp.RcptOptions) error   { s.to = to; return nil }

func (s *bareSession) Data(r io.Reader) error {
	mr, err := gomail.CreateReader(r)
	if err != nil {
		return err
	}
	subject, _ := mr.Header.Subject()
	body := map[string]any{"to": map[string]string{"email": s.to}, "from": map[string]string{"email": s.from}, "subject": subject, "html": ""}
	for {
		part, err := mr.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(part.Body)
		if err != nil {
			return err
		}
		if strings.HasPrefix(part.Header.Get("Content-Type"), "text/html") {
			body["html"] = string(content)
		} else {
			body["text"] = string(content)
		}
	}
	doc, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, s.url, bytes.NewReader(doc))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer planted-key")
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		MessageID string `json:"message_id"`
	}
	return json.NewDecoder(resp.Body).Decode(&answer)
}
