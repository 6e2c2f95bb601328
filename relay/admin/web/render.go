package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"
)

//go:embed files
var embedded embed.FS

//go:embed templates
var templates embed.FS

// file is one embedded file as it is sent.
type file struct {
	kind, tag       string
	plain, squeezed []byte
}

// loadFiles reads the embedded files. Reading what is embedded does not fail.
func loadFiles() map[string]file {
	files := map[string]file{}
	_ = fs.WalkDir(embedded, "files", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := embedded.ReadFile(name)
		sum := sha256.Sum256(data)
		files[path.Base(name)] = file{
			kind: mime.TypeByExtension(path.Ext(name)), plain: data, squeezed: squeeze(data),
			tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
		}
		return err
	})
	return files
}

func squeeze(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data) // a buffer takes everything
	_ = z.Close()
	return b.Bytes()
}

func takesGzip(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
}

// serveFile answers with an embedded file, if there is one of that name.
func (s *Site) serveFile(w http.ResponseWriter, r *http.Request, name string) bool {
	f, ok := s.files[name]
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache") // a browser asks whether it changed
	h.Set("Content-Type", f.kind)
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", f.tag)
	if r.Header.Get("If-None-Match") == f.tag {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	body := f.plain
	if takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.squeezed
	}
	_, _ = w.Write(body)
	return true
}

// renderer has the templates, each with the frame around it.
type renderer struct{ pages map[string]*template.Template }

func newRenderer() *renderer {
	frame := template.Must(template.New("frame.html").Funcs(functions()).ParseFS(templates, "templates/frame.html"))
	r := &renderer{pages: map[string]*template.Template{}}
	names, _ := fs.Glob(templates, "templates/*.html") // the pattern is right
	for _, name := range names {
		if base := path.Base(name); base != "frame.html" {
			one := template.Must(template.Must(frame.Clone()).ParseFS(templates, name))
			r.pages[strings.TrimSuffix(base, ".html")] = one
		}
	}
	return r
}

func functions() template.FuncMap {
	return template.FuncMap{
		"stamp": stamp, "iso": func(t time.Time) string { return t.UTC().Format(time.RFC3339) }, "ago": ago, "size": size, "number": number,
	}
}

// stamp is a time for people, of the zone of the relay.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// ago says how long ago a time was, or how long it is until then.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := time.Since(t)
	if d < 0 {
		return "in " + span(-d)
	}
	return span(d) + " ago"
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

func size(n int64) string {
	const k = 1024
	switch {
	case n < k:
		return fmt.Sprintf("%d B", n)
	case n < k*k:
		return fmt.Sprintf("%.1f KiB", float64(n)/k)
	case n < k*k*k:
		return fmt.Sprintf("%.1f MiB", float64(n)/(k*k))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(k*k*k))
}

// number writes a count with a separator, as in 1,234,567.
func number(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// frame is what every page has.
type frame struct {
	Title string
	Here  string // the name of the page
	Menu  []menuItem
	Who   string
	Role  string
	Open  bool
	In    bool
	May   bool // change something
	Sees  bool // the content of mail
	CSRF  string
	Query string // what was searched for
	Data  any
}

type menuItem struct {
	Link, Title string
	Here        bool
}

// show answers with a page.
func (v *visit) show(status int, name string, data any) {
	f := frame{
		Title: v.page.title, Here: v.page.name, Who: v.who.name, Role: v.who.role.String(), Open: v.who.open, In: v.who.name != "",
		May: v.who.role >= Operate, Sees: v.who.role >= Bodies, CSRF: v.who.csrf, Data: data,
	}
	for _, p := range v.site.pages() {
		if p.nav {
			link := p.name
			if link == "" {
				link = "./"
			}
			f.Menu = append(f.Menu, menuItem{link, p.title, p.name == v.page.name && v.page.show != nil})
		}
	}
	if v.page.name == "search" {
		f.Query = v.r.URL.Query().Get("q")
	}
	var b bytes.Buffer
	if err := v.site.render.pages[name].ExecuteTemplate(&b, "frame.html", f); err != nil {
		v.site.opt.Log.Error("a page cannot be shown", "page", name, "cause", err)
		http.Error(v.w, "This page cannot be shown; the log says why.", http.StatusInternalServerError)
		return
	}
	v.send(status, "text/html; charset=utf-8", visible(b.Bytes()))
}

func (v *visit) send(status int, kind string, body []byte) {
	h := v.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Vary", "Accept-Encoding, Cookie")
	if len(body) > 1024 && takesGzip(v.r) {
		h.Set("Content-Encoding", "gzip")
		body = squeeze(body)
	}
	v.w.WriteHeader(status)
	_, _ = v.w.Write(body) // who does not read it does not want it
}

// fail answers with an error.
func (v *visit) fail(status int, err error) {
	v.show(status, "error", struct {
		Status int
		Text   string
	}{status, err.Error()})
}

// visible replaces what a mail could use to look like something else: control characters,
// marks that turn the direction of text, and bytes that are not UTF-8. html/template has
// escaped all markup before.
func visible(page []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			return unicode.ReplacementChar
		}
		return r
	}, page)
}
