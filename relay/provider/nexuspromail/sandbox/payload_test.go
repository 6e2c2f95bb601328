package sandbox

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
)

// with returns the good body, changed in one place.
func with(old, changed string) string {
	if !strings.Contains(good, old) {
		panic("the good body has no " + old)
	}
	return strings.Replace(good, old, changed, 1)
}

// TestFurtherFields: an account can take fields that the API does not document.
func TestFurtherFields(t *testing.T) {
	const body = `{"to":{"email":"a@example.net"},"from":{"email":"b@example.net"},"subject":"s","html":"","files":[{"x":1}]}`
	if _, err := parse([]byte(body)); err == nil {
		t.Error("files is taken although nobody said so")
	}
	if _, err := parse([]byte(body), "files"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{strings.Replace(body, `"files":`, `"files":1,"files":`, 1), strings.Replace(body, `"email":"a`, `"files":1,"email":"a`, 1)} {
		if _, err := parse([]byte(bad), "files"); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestValidation(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	long := strings.Repeat("k", 70)
	for _, tc := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"no to", with(`"to":{"email":"bob@example.net"},`, ``), 422, "to is required"},
		{"no from", with(`"from":{"email":"hello@mail.example.com","name":"App"},`, ``), 422, "from is required"},
		{"no subject", with(`"subject":"Hi",`, ``), 422, "subject is required"},
		{"no html", with(`"html":"<p>Hi</p>",`, ``), 422, "html is required"},
		{"nothing", `{}`, 422, "to is required"},
		{"no to.email", with(`{"email":"bob@example.net"}`, `{}`), 422, "to.email is required"},
		{"no from.email", with(`"email":"hello@mail.example.com",`, ``), 422, "from.email is required"},
		{"no reply_to.email", with(`{"email":"s@example.com"}`, `{"name":"S"}`), 422, "reply_to.email is required"},
		{"empty to.email", with(`bob@example.net`, ``), 422, "to.email is empty"},
		{"empty from.email", with(`hello@mail.example.com`, ``), 422, "from.email is empty"},
		{"bad to.email", with(`bob@example.net`, `bob`), 422, "to.email is not a valid address"},
		{"to.email with a name", with(`bob@example.net`, `Bob <bob@example.net>`), 422, "to.email is not a valid address"},
		{"two in to.email", with(`bob@example.net`, `bob@example.net,eve@example.net`), 422, "to.email is not a valid address"},
		{"bad reply_to.email", with(`s@example.com`, `s@`), 422, "reply_to.email is not a valid address"},
		{"to.name", with(`"bob@example.net"`, `"bob@example.net","name":"Bob"`), 422, "to.name is not a known field"},
		{"cc", with(`"text"`, `"cc":[],"text"`), 422, "cc is not a known field"},
		{"attachments", with(`"text"`, `"attachments":[{"a":[1,-2.5e+3,true,null]}],"text"`), 422, "attachments is not a known field"},
		{"a dotted key", with(`"text"`, `"to.email":"eve@example.net","text"`), 422, "to.email is not a known field"},
		{"another case", with(`"subject"`, `"Subject"`), 422, "Subject is not a known field"},
		{"a long unknown", with(`"text"`, `"`+long+`":1,"text"`), 422, long[:64] + "… is not a known field"},
		{"reply_to.what", with(`"s@example.com"`, `"s@example.com","what":1`), 422, "reply_to.what is not a known field"},
		{"to is a string", with(`{"email":"bob@example.net"}`, `"bob@example.net"`), 422, "to must be an object"},
		{"to is a list", with(`{"email":"bob@example.net"}`, `[{"email":"bob@example.net"}]`), 422, "to must be an object"},
		{"to is null", with(`{"email":"bob@example.net"}`, `null`), 422, "to must be an object"},
		{"to.email is a number", with(`"bob@example.net"`, `1`), 422, "to.email must be a string"},
		{"subject is null", with(`"Hi"`, `null`), 422, "subject must be a string"},
		{"html is an object", with(`"<p>Hi</p>"`, `{"a":1}`), 422, "html must be a string"},
		{"text is null", with(`"text":"Hi"`, `"text":null`), 422, "text must be a string"},
		{"from.name is false", with(`"App"`, `false`), 422, "from.name must be a string"},
		{"subject twice", with(`"text"`, `"subject":"Ho","text"`), 422, "subject is given twice"},
		{"subject twice, once escaped", with(`"text"`, `"s\u0075bject":"Ho","text"`), 422, "subject is given twice"},
		{"to.email twice", with(`"bob@example.net"`, `"bob@example.net","email":"eve@example.net"`), 422, "to.email is given twice"},
		{"subject of two lines", with(`"Hi"`, `"Hi\r\nBcc: eve@example.net"`), 422, "subject must be one line"},
		{"from.name of two lines", with(`"App"`, `"App\nX: y"`), 422, "from.name must be one line"},
		{"the first wrong one is named", with(`"Hi"`, `1`) + ` `, 422, "subject must be a string"},
		{"a list", `[]`, 422, "the body must be an object"},
		{"a string", `"to"`, 422, "the body must be an object"},
		{"null", `null`, 422, "the body must be an object"},
		{"empty", ``, 400, "invalid JSON at byte 0"},
		{"cut", good[:50], 400, "invalid JSON at byte 50"},
		{"two", good + good, 400, "invalid JSON at byte 172"},
		{"a comma too many", `{"to":{},}`, 400, "invalid JSON at byte 9"},
		{"syntax before fields", `{"to":1,"cc":[1,]}`, 400, "invalid JSON at byte 16"},
		{"a line break in a string", with(`Hi`, "H\ni"), 400, "invalid JSON at byte 101"},
		{"a wrong escape", with(`"Hi"`, `"\x"`), 400, "invalid JSON at byte 101"},
		{"a half escape", with(`"Hi"`, `"\u12"`), 400, "invalid JSON at byte 104"},
		{"not UTF-8", with(`<p>Hi</p>`, "\xe4"), 400, "the body is not valid UTF-8"},
		{"a leading zero", `{"a":01}`, 400, "invalid JSON at byte 6"},
		{"many, not deep", `[{}` + strings.Repeat(",{}", 10_000) + `]`, 422, "the body must be an object"},
		{"too deep", strings.Repeat("[", 10_001), 400, "invalid JSON at byte 10000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := must(t, c, s.sendURL(), tc.body, nil)
			code := map[int]string{400: "bad_request", 422: "validation"}[tc.status]
			want, _ := json.Marshal(map[string]string{"error": code, "message": tc.want})
			if g.status != tc.status || g.body != string(want) {
				t.Errorf("got %d %s, want %d %s", g.status, g.body, tc.status, want)
			}
		})
	}
	if n := s.Stats().Accepted; n != 0 {
		t.Errorf("%d accepted", n)
	}
}

func TestGoodBodies(t *testing.T) {
	for name, body := range map[string]string{
		"as documented":    good,
		"the least":        `{"to":{"email":"bob@example.net"},"from":{"email":"a@b.c"},"subject":"","html":""}`,
		"white space":      " \t\r\n" + strings.ReplaceAll(good, ":", " :\n ") + "\n",
		"reply_to.name":    with(`"s@example.com"`, `"s@example.com","name":"S"`),
		"html of lines":    with(`<p>Hi</p>`, `<p>\r\n\u00fc \ud83d\ude00 ü 😀 \/</p>`),
		"an escaped field": with(`"to"`, `"t\u006f"`),
	} {
		p, err := parse([]byte(body))
		if err != nil || p.to != "bob@example.net" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	label, local := strings.Repeat("d", 63), strings.Repeat("l", 64)
	for addr, want := range map[string]bool{
		"bob@example.net": true, "b.o-b+tag@example.net": true, "root@localhost": true, "ü@münchen.example": true,
		`"a b"@example.net`: true, `"a\"@b"@example.net`: true, local + "@" + label + ".net": true, "!#$%&'*+-/=?^_`{|}~@a": true,
		"": false, "@": false, "bob": false, "@example.net": false, "bob@": false, "bob@.net": false, "bob@net.": false,
		".bob@example.net": false, "bob.@example.net": false, "b..b@example.net": false, "b b@example.net": false,
		"bob@exa mple.net": false, "bob@example.net ": false, "bob@[127.0.0.1]": false, "bob@-a.net": false, "bob@a-.net": false,
		"bob@a_b.net": false, "a@b@c": false, "<a@b>": false, "a\n@b": false, "a@b\n": false, "a,b@c": false,
		`"a"b"@c`: false, `"a\"@c`: false, "\"a\n\"@c": false, `"@c`: false, "\"\\\n\"@c": false,
		"l" + local + "@a": false, "a@d" + label: false, "a@" + strings.Repeat(label[:62]+".", 4) + "net": false,
	} {
		if validAddress(addr) != want {
			t.Errorf("%q: want %v", addr, want)
		}
	}
}

// FuzzParse compares parse with encoding/json: the two agree on what is JSON, and
// what the sandbox takes, encoding/json reads in the same way.
func FuzzParse(f *testing.F) {
	for _, s := range []string{good, ``, `{}`, `[]`, `01`, `1.`, `[1,-0.5e-3,"\u00e4",tru]`, `{"to":{"email":"a@b"}}x`,
		`{"a":{"b":[{}]},"a":null}`, `"\ud800"`, "{\"\xff\":1}", `-`, `1e`, `nul`, `{"a"}`, `{1:2}`, with("Hi", `\"`)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := parse(body)
		if errors.Is(err, errNotUTF8) {
			return
		}
		_, isSyntax := errors.AsType[*syntaxError](err)
		if isSyntax == json.Valid(body) {
			t.Fatalf("%q: %v, but encoding/json says valid: %v", body, err, json.Valid(body))
		}
		if err != nil {
			return
		}
		var v struct {
			To, From struct{ Email string }
			Subject  string
		}
		if err := json.Unmarshal(body, &v); err != nil {
			t.Fatal(err)
		}
		if want := (payload{v.To.Email, v.From.Email, v.Subject}); p != want {
			t.Fatalf("%+v, but encoding/json reads %+v", p, want)
		}
	})
}

// FuzzCall sends bodies to the whole handler, which never answers 5xx, and always
// JSON.
func FuzzCall(f *testing.F) {
	f.Add([]byte(good), "application/json", "k")
	f.Add([]byte(`{"to":`), "application/json; charset=latin1", "")
	f.Fuzz(func(t *testing.T, body []byte, contentType, key string) {
		s := New(Options{Keep: 2, MaxBody: 4096})
		s.magic = nil // magic recipients answer 5xx and worse, as they should
		r := httptest.NewRequest("POST", s.path, strings.NewReader(string(body)))
		r.Header.Set("Authorization", "Bearer "+defaultKey)
		r.Header["Content-Type"] = []string{contentType}
		r.Header["Idempotency-Key"] = []string{key}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %q", w.Code, w.Body)
		}
		if _, err := json.Marshal(s.Calls()); err != nil {
			t.Fatal(err)
		}
	})
}
