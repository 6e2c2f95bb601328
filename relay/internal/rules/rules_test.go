// Package rules holds the repository to its own rules, each with its reason.
// It has no code but this test and reads every Go file of the module.
package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/smtp2rest/smtp2rest"

// source is one parsed Go file.
type source struct {
	path string // from the top of the repository, with slashes
	dir  string
	test bool
	file *ast.File
	fset *token.FileSet
}

func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

func (s source) lines(n ast.Node) int {
	return s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
}

// read reads the module this test is part of, once.
var read = sync.OnceValues(readSources)

// sources is the module this test is part of.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := read()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d files found: this test is looking in the wrong place", len(all))
	}
	return all
}

func readSources() (all []source, err error) {
	top := filepath.Join("..", "..", "..")
	if _, err := os.Stat(filepath.Join(top, "go.mod")); err != nil {
		return nil, fmt.Errorf("the top of the repository is not where this test looks: %w", err)
	}
	err = filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		p := filepath.ToSlash(rel)
		test := strings.HasSuffix(p, "_test.go") || slices.Contains(testPackages(), path.Dir(p))
		all = append(all, source{p, path.Dir(p), test, file, fset})
		return nil
	})
	return all, err
}

// testPackages are test code, though they are packages: conformance suites and
// faults that several tests use.
func testPackages() []string {
	return []string{"relay/queue/queuetest", "relay/suppress/suppresstest", "relay/history/historytest", "relay/forward/forwardtest", "relay/provider/providertest", "relay/internal/memnet", "relay/store/postgres/pgtest", "test/harness"}
}

// within reports whether dir is root or below it; "..." is everything.
func within(dir, root string) bool {
	return root == "..." || dir == root || strings.HasPrefix(dir, root+"/")
}

// importRule bans imports. Tests are bound as well unless it says otherwise.
type importRule struct {
	from   string   // directory, with all below it
	banned []string // import paths, with all below them; ours without the module
	except []string // directories below from, or imports, that may
	tests  bool     // tests may
	why    string
}

func importRules() []importRule {
	return []importRule{
		{from: "smtpd", banned: []string{"relay", "cmd"},
			why: "the SMTP side knows nothing of what becomes of the mail; relay/intake is the one bridge"},
		{from: "internal/settings", banned: []string{"smtpd", "relay", "cmd"},
			why: "every package's settings are read by it, in tests of smtpd as well"},
		{from: "...", banned: []string{"cmd"}, except: []string{"cmd"},
			why: "commands are how a person runs the relay; nothing is built on them"},
		{from: "relay", banned: []string{"smtpd"}, except: []string{"relay/intake", "relay/app", "relay/config", "smtpd/policy"},
			why: "only intake and app know both sides; relay/config has the settings that smtpd declares, and smtpd/policy is pure"},
		{from: "smtpd/policy", banned: []string{"net", "os", "time", "log/slog", "context"}, except: []string{"net/netip"}, tests: true,
			why: "the rules are pure: the same lists and address give the same answer, always"},
		{from: "relay", banned: []string{"relay/app"}, except: []string{"relay/app"},
			why: "app wires everything, so nothing it wires may know it"},
		{from: "relay", banned: []string{"relay/config"}, except: []string{"relay/config", "relay/app"},
			why: "packages take their own Options, so that each can be read and tested alone"},
		{from: "relay", banned: []string{"relay/provider/nexuspromail/sandbox"}, except: []string{"relay/provider/nexuspromail/sandbox", "relay/provider/vendors"}, tests: true,
			why: "the sandbox stands in for the provider; the daemon must not depend on it"},
		{from: "relay/provider", banned: []string{"relay/attempt", "relay/intake", "relay/deliver", "relay/queue", "relay/pace", "relay/config", "smtpd"}, tests: true,
			why: "a provider writes, sends and reads; when and for whom is for others"},
		{from: "relay/mail", banned: []string{"encoding/json", "relay/provider"}, tests: true,
			why: "what a mail is does not depend on how an API wants it written"},
		{from: "relay/mail", banned: []string{"net", "net/http", "os", "time", "log/slog", "context"}, except: []string{"net/mail", "net/textproto", "net/url", "net/netip"}, tests: true,
			why: "the mapping is pure: the same mail and options give the same payload, always"},
		{from: "relay/retry", banned: []string{"net", "os", "log/slog", "context"}, tests: true,
			why: "the schedule is pure"},
		{from: "relay/warm", banned: []string{"net", "os", "log/slog", "context"}, tests: true,
			why: "the plan is pure"},
		{from: "relay", banned: []string{"relay/store"}, except: []string{"relay/store", "relay/app"}, tests: true,
			why: "everyone but app knows the queue by its contract alone"},
		{from: "relay/bounce", banned: []string{"net", "os", "log/slog", "context"}, tests: true,
			why: "the text of a bounce is pure"},
		{from: "...", banned: []string{"test"}, except: []string{"test"}, tests: true,
			why: "test runs the program; the program is built without it"},
		{from: "...", banned: []string{"log"}, except: []string{"log/slog"},
			why: "one logger, handed in: log/slog"},
		{from: "...", banned: []string{"io/ioutil", "github.com/pkg/errors", "math/rand"}, except: []string{"math/rand/v2"},
			why: "superseded by the standard library"},
	}
}

func (r importRule) binds(s source) bool {
	if !within(s.dir, r.from) || s.test && r.tests {
		return false
	}
	return !slices.ContainsFunc(r.except, func(e string) bool { return within(s.dir, e) })
}

func (r importRule) bans(imported string) bool {
	for _, e := range r.except {
		if within(imported, e) {
			return false
		}
	}
	return slices.ContainsFunc(r.banned, func(b string) bool { return within(imported, b) })
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			imported = strings.TrimPrefix(imported, module+"/")
			for _, rule := range importRules() {
				if rule.binds(s) && rule.bans(imported) {
					t.Errorf("%s imports %s: %s", s.at(spec), imported, rule.why)
				}
			}
		}
	}
}

// Engines are chosen by a URL: whoever opens one by its own package, a command or
// a test among them, has to be changed for the next.
func TestStoresAreOpenedByURL(t *testing.T) {
	for _, s := range sources(t) {
		for _, spec := range s.file.Imports {
			server := s.test && strings.HasSuffix(spec.Path.Value, `/pgtest"`) // a server for tests, and no engine
			if strings.HasPrefix(spec.Path.Value, `"`+module+"/relay/store/") && !within(s.dir, "relay/store") && !server {
				t.Errorf("%s imports %s: only relay/store may; use store.Open", s.at(spec), spec.Path.Value)
			}
		}
	}
}

// Vendors are chosen by the setting api.provider: whoever names one, in an import, a tag
// or a text, has to be changed for the next. Help says for which provider the program was
// written.
func TestOnlyTheListOfVendorsNamesThem(t *testing.T) {
	const list, help = "relay/provider/vendors", "cmd/smtp2rest/internal/cli/root.go"
	all := sources(t)
	var names []string
	for _, s := range all {
		for _, spec := range s.file.Imports {
			if _, below, ok := strings.Cut(strings.Trim(spec.Path.Value, `"`), module+"/relay/provider/"); ok && s.dir == list {
				names = append(names, strings.SplitN(below, "/", 2)[0])
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("no vendor is listed: this test is looking in the wrong place")
	}
	for _, s := range all {
		if s.test || s.path == help || s.dir == list || within(s.dir, "scripts") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			text, ok := n.(*ast.BasicLit)
			for _, name := range names {
				if ok && strings.Contains(strings.ToLower(text.Value), name) && !within(s.dir, "relay/provider/"+name) {
					t.Errorf("%s names the vendor %s: only %s may; use what provider.Vendor has", s.at(text), name, list)
				}
			}
			return true
		})
	}
}

// The domain's words are the bottom of the house.
func TestTheWordsImportNothingOfOurs(t *testing.T) {
	for _, s := range sources(t) {
		if s.dir != "relay" {
			continue
		}
		for _, spec := range s.file.Imports {
			if strings.Contains(spec.Path.Value, module) {
				t.Errorf("%s: package relay must stay the bottom", s.at(spec))
			}
		}
	}
}

func TestOnePackageCommentEach(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") && !strings.HasSuffix(s.dir, "/rules") && !within(s.dir, "test") {
			continue
		}
		if _, seen := comments[s.dir]; !seen {
			comments[s.dir] = nil
		}
		if s.file.Doc != nil {
			comments[s.dir] = append(comments[s.dir], s.path)
			want := "Package " + s.file.Name.Name + " "
			if s.file.Name.Name == "main" {
				want = "Command "
			}
			if !strings.HasPrefix(s.file.Doc.Text(), want) {
				t.Errorf("%s: the package comment begins with %q", s.path, want)
			}
		}
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("%s has %d package comments, want one that tells its job and its neighbours: %v", dir, len(files), files)
		}
	}
}

// Two daemons must be able to live in one process, and nothing may happen on
// import: no init, and no variables but what cannot change.
func TestNoPackageState(t *testing.T) {
	for _, s := range sources(t) {
		if within(s.dir, "scripts") {
			continue // run by hand, each a small program of its own
		}
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s: func init", s.at(f))
			}
			if g, ok := decl.(*ast.GenDecl); ok && g.Tok == token.VAR && !s.test {
				for _, spec := range g.Specs {
					if v := spec.(*ast.ValueSpec); !constantByNature(s, g, v) {
						t.Errorf("%s: package variable %s", s.at(v), v.Names[0].Name)
					}
				}
			}
		}
	}
}

// constantByNature allows errors, embedded files, interface assertions,
// encodings, arrays and compiled expressions: nobody assigns to them.
func constantByNature(s source, g *ast.GenDecl, v *ast.ValueSpec) bool {
	if v.Names[0].Name == "_" || embedded(g.Doc) || embedded(v.Doc) {
		return true
	}
	if s.path == "cmd/smtp2rest/main.go" && v.Names[0].Name == "version" {
		return true // written by the linker
	}
	if len(v.Values) != 1 {
		return false
	}
	root := v.Values[0]
	if table, ok := root.(*ast.CompositeLit); ok {
		array, ok := table.Type.(*ast.ArrayType)
		return ok && array.Len != nil // a fixed table, not a slice or map
	}
	for {
		call, ok := root.(*ast.CallExpr)
		if !ok {
			return false
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		if pkg, ok := sel.X.(*ast.Ident); ok {
			name := pkg.Name + "." + sel.Sel.Name
			return slices.Contains([]string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "template.Must", "strings.NewReplacer"}, name)
		}
		if inner, ok := sel.X.(*ast.SelectorExpr); ok {
			pkg, ok := inner.X.(*ast.Ident)
			return ok && (pkg.Name == "base32" || pkg.Name == "base64")
		}
		root = sel.X
	}
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed")
	})
}

func TestForbiddenCalls(t *testing.T) {
	all := sources(t)
	virtual := map[string]bool{} // packages whose tests live in virtual time
	for _, s := range all {
		if imports(s, "testing/synctest") {
			virtual[s.dir] = true
		}
	}
	for _, s := range all {
		if within(s.dir, "scripts") {
			continue // run by hand, each a small program of its own
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch name := calleeName(call); {
			case name == "os.Exit" && (s.file.Name.Name != "main" || path.Base(s.path) != "main.go") && !s.test:
				t.Errorf("%s: only main.go of a program may end the process", s.at(call))
			case name == "panic" && !s.test:
				t.Errorf("%s: an error is a value here", s.at(call))
			case name == "time.Sleep" && s.test && !virtual[s.dir]:
				t.Errorf("%s: a test that sleeps is slow or flaky; wait for a signal or use synctest", s.at(call))
			}
			return true
		})
	}
}

func calleeName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if pkg, ok := f.X.(*ast.Ident); ok {
			return pkg.Name + "." + f.Sel.Name
		}
	}
	return ""
}

func imports(s source, name string) bool {
	return slices.ContainsFunc(s.file.Imports, func(spec *ast.ImportSpec) bool {
		return spec.Path.Value == strconv.Quote(name)
	})
}

// mayOpen are the stores' source files in which files are opened, with the reason
// why none of those is a database that SQLite has open. A process that closes any
// descriptor of such a file loses SQLite's locks on it (POSIX, fcntl): another
// program then takes itself for the last user of the database and deletes the
// write-ahead log.
func mayOpen() map[string]string {
	return map[string]string{
		"relay/store/internal/db/file.go":           "a database before SQLite opens it, and its write-ahead log, on which there are no locks",
		"relay/store/internal/db/schema.go":         "a database before SQLite opens it",
		"relay/store/internal/db/system_unix.go":    "a lock file of our own, and directories",
		"relay/store/internal/db/system_windows.go": "a lock file of our own",
		"relay/store/sqlite/records.go":             "the marker beside a damaged database",
		"relay/store/sqlite/segments.go":            "files of earlier versions with many bodies",
		"relay/store/sqlite/spool.go":               "bodies",
	}
}

func TestNobodyOpensADatabaseBesideSQLite(t *testing.T) {
	opening := []string{"os.Open", "os.OpenFile", "os.Create", "os.ReadFile", "os.WriteFile", "os.OpenInRoot", "os.OpenRoot", "syscall.Open", "unix.Open"}
	for _, s := range sources(t) {
		if s.test || !within(s.dir, "relay/store") || mayOpen()[s.path] != "" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && slices.Contains(opening, calleeName(call)) {
				t.Errorf("%s opens a file: if it is a database that SQLite has open, its locks are lost; if not, say so in mayOpen", s.at(call))
			}
			return true
		})
	}
}

// A file of more than 900 lines is two files; a function of more than 100 lines
// does not fit a screen. Functions that only return a literal are exempt.
func TestSizes(t *testing.T) {
	const maxFile, maxFunc = 900, 100
	for _, s := range sources(t) {
		if n := s.fset.File(s.file.Pos()).LineCount(); n > maxFile && !s.test {
			t.Errorf("%s has %d lines, at most %d: what is it two of?", s.path, n, maxFile)
		}
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && !s.test && s.lines(f) > maxFunc && !isTable(f) {
				t.Errorf("%s: %s has %d lines, at most %d", s.at(f), f.Name.Name, s.lines(f), maxFunc)
			}
		}
	}
}

// isTable tells a function that does nothing but return a literal, whose
// length is its data's and not its logic's.
func isTable(f *ast.FuncDecl) bool {
	if f.Body == nil || len(f.Body.List) != 1 {
		return false
	}
	_, ok := f.Body.List[0].(*ast.ReturnStmt)
	return ok
}

func TestNothingIsLeftForLater(t *testing.T) {
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			for _, word := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"} {
				if strings.Contains(group.Text(), word) {
					t.Errorf("%s: %s; open an issue instead", s.at(group), word)
				}
			}
		}
	}
}
