package mail_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	. "github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is the expected result for one mail of testdata.
type golden struct {
	Payload     json.RawMessage `json:"payload,omitempty"`
	Attachments []goldenFile    `json:"attachments,omitempty"`
	Notes       []string        `json:"notes,omitempty"`
	Refused     string          `json:"refused,omitempty"` // with the default policy
}

type goldenFile struct {
	Name string `json:"name"`
	Type string `json:"type"`
	CID  string `json:"cid,omitempty"`
	Size int    `json:"size"`
}

func testOptions() Options {
	return Options{Default: relay.Address{Email: "default@app.example.com", Name: "The App"}, Domains: []string{"example.com"}}
}

// TestGolden maps each testdata/NAME.eml, which is named after the oddity that it
// shows, and compares the result with NAME.json. The files are read byte by byte,
// because their line ends are part of the oddity.
func TestGolden(t *testing.T) {
	mails, err := filepath.Glob("testdata/*.eml")
	if err != nil || len(mails) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, path := range mails {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".eml"), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := goldenOf(t, raw)
			file := strings.TrimSuffix(path, ".eml") + ".json"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".eml"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func goldenOf(t *testing.T, raw []byte) []byte {
	t.Helper()
	var g golden
	o := testOptions()
	explain := func(kind OmissionKind, words string) {
		if note := kind.String() + ": " + words; !slices.Contains(g.Notes, note) {
			g.Notes = append(g.Notes, note)
		}
	}
	o.Explain = explain
	m, err := Map(raw, "envelope@example.com", o)
	var refusal *Refusal
	if errors.As(err, &refusal) {
		g.Refused = refusal.Reason.String() + ": " + refusal.Detail
		g.Notes = nil
		o.Attachments = SendAttachments
		m, err = Map(raw, "envelope@example.com", o)
	}
	if err == nil {
		g.Payload = encoded(t, m)
	} else if errors.As(err, &refusal) && refusal.Read != nil {
		m = refusal.Read
	}
	if m != nil {
		for i := range m.Attachments {
			a := &m.Attachments[i]
			g.Attachments = append(g.Attachments, goldenFile{a.Filename, a.ContentType, a.ContentID, len(a.Content())})
		}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(g); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// encoded returns the mail's JSON for one recipient.
func encoded(t testing.TB, m *Mail) []byte {
	t.Helper()
	return encodedAs(t, m, settings.Defaults[nexuspromail.Format]())
}

func encodedAs(t testing.TB, m *Mail, f nexuspromail.Format) []byte {
	t.Helper()
	body, err := f.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := io.ReadAll(body.Open("bob@example.net"))
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(doc)) != body.Len("bob@example.net") {
		t.Errorf("Len says %d, the document has %d bytes", body.Len("bob@example.net"), len(doc))
	}
	if !json.Valid(doc) {
		t.Errorf("not JSON: %q", doc)
	}
	return doc
}
