package mime

import (
	"bytes"
	"sort"
	"unicode"
	"unicode/utf8"
)

// escaped recognises the 7-bit charsets that switch by escape sequences.
func escaped(b []byte) string {
	if bytes.IndexByte(b, 0x1B) < 0 {
		return ""
	}
	for _, e := range []struct{ sequence, name string }{
		{"\x1b$B", "iso-2022-jp"},
		{"\x1b$@", "iso-2022-jp"},
		{"\x1b(J", "iso-2022-jp"},
		{"\x1b$)C", "iso-2022-kr"},
		{"\x1b$)A", "iso-2022-cn"},
	} {
		if bytes.Contains(b, []byte(e.sequence)) {
			return e.name
		}
	}
	return ""
}

// likeliest returns the charset in which a sample is valid and spells common letters.
func likeliest(sample []byte) string {
	if !textual(sample) {
		return "windows-1252" // not text; any charset will do
	}
	for _, list := range [][]candidate{doubleByte(), singleByte()} {
		best, most := "", 0.6
		for _, c := range list {
			if s := c.score(sample); s > most {
				best, most = c.name, s
			}
		}
		if best != "" {
			return best
		}
	}
	return "windows-1252"
}

// highSample returns the part of a text that says something about its charset: up to a
// limit, from the first byte that is not ASCII.
func highSample(b []byte) []byte {
	const limit = 4 << 10
	i := bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf })
	if i < 0 {
		return nil
	}
	return b[max(i-1, 0):min(len(b), i+limit)]
}

// textual reports whether a sample has no control characters, as binary files have.
func textual(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != 0x1B {
			return false
		}
	}
	return true
}

// candidate is a charset that may be guessed. common says how usual a character is in text
// of that charset, from 0 to 1. A negative value counts against the charset.
type candidate struct {
	name   string
	common func(r rune) float64
}

// score is the mean over the characters that are not ASCII.
func (c candidate) score(b []byte) float64 {
	sum, n, bad := 0.0, 0, 0
	prev := rune(0)
	for _, r := range convert(c.name, b) {
		switch {
		case r == utf8.RuneError:
			bad++
			n++
		case r >= utf8.RuneSelf:
			n++
			sum += c.rate(prev, r)
		case latin(r) && prev >= utf8.RuneSelf && inWord(prev):
			sum -= 0.7 // two alphabets in a word: it is Western text
		}
		prev = r
	}
	if n < 2 || bad > 1 && bad*20 > n {
		return 0
	}
	s := (sum - 2*float64(bad)) / float64(n)
	if c.name == "windows-1255" && n >= 15 {
		s += 0.06 // its letters take the place of Cyrillic's small ones, but only of some
	}
	if c.name != "shift_jis" {
		s -= lowHigh(b) // only Shift JIS has many bytes in that range
	}
	return s
}

// lowHigh returns how many of the bytes above ASCII are in 0x80 to 0x9F, from 0 to 1.
func lowHigh(b []byte) float64 {
	low, high := 0, 0
	for _, c := range b {
		if c >= 0x80 {
			high++
			if c < 0xA0 {
				low++
			}
		}
	}
	return float64(low) / float64(max(high, 1))
}

func inWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r) }

func (c candidate) rate(prev, r rune) float64 {
	switch {
	case r < 0xA0 || unicode.Is(unicode.Co, r):
		return -1
	case c.name == "windows-1255" && unicode.IsMark(r):
		return -0.7 // vowel points, which nobody types; capitals in Cyrillic
	case latin(prev) && inWord(r):
		return c.common(r) - 0.7
	case unicode.IsUpper(r) && unicode.IsLower(prev):
		return c.common(r) - 0.6 // case changes inside a word
	}
	return c.common(r)
}

func latin(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

// doubleByte returns the East Asian charsets. If text of another alphabet happens to be
// valid in one, it shows as rare ideographs.
func doubleByte() []candidate {
	return []candidate{
		{"shift_jis", kana},
		{"euc-jp", kana},
		{"euc-kr", hangul},
		{"gb18030", simplified},
		{"big5", traditional},
	}
}

// singleByte returns charsets that differ in which bytes are letters, and their case. Text
// in none of them is Western, whose letters are mixed with ASCII ones.
func singleByte() []candidate {
	return []candidate{
		{"windows-1251", cyrillic},
		{"koi8-r", cyrillic},
		{"windows-1253", script(unicode.Greek)},
		{"windows-1255", script(unicode.Hebrew)},
		{"windows-1256", script(unicode.Arabic)},
		{"windows-874", script(unicode.Thai)},
	}
}

func kana(r rune) float64 {
	switch {
	case r >= 0x3041 && r <= 0x30FF:
		return 1
	case r >= 0x3000 && r <= 0x3003:
		return 1
	case r >= 0xFF61 && r <= 0xFF9F: // half-width: one byte, so mostly a wrong guess
		return -0.5
	case unicode.Is(unicode.Han, r):
		return 0.6
	}
	return symbol(r)
}

func hangul(r rune) float64 {
	if r >= 0xAC00 && r <= 0xD7A3 {
		return 1
	}
	if unicode.Is(unicode.Han, r) {
		return 0.1
	}
	return symbol(r)
}

func simplified(r rune) float64 {
	if unicode.Is(unicode.Han, r) {
		return commonHan(r, simplifiedCommon)
	}
	return symbol(r)
}

func traditional(r rune) float64 {
	if unicode.Is(unicode.Han, r) {
		return commonHan(r, traditionalCommon)
	}
	return symbol(r)
}

// The commonest characters of each script, including those that both scripts use. A running
// text consists of them by a third or more, a text decoded wrongly almost never. They are in
// order and have three bytes each, for commonHan.
const (
	simplifiedCommon  = "一万三上下不与且世业东两个中为主么义之也书了争事二于五些交产人什今从他代以们件任会传但位住体何作你使便保信候做像儿先光克入全公共关其内再军决几出分切则利别到制前力加务动化北区十单南即却原去又及反发取受变口只可司各合同名后向听告员命和品四回因国在地场基声处外多大天太头女她好如子学它安完定实家密对导将小少尔就展山工己已市师带常平年并应度建开式张强当形很得德心必思性总您情想意感成我或战户所手才打把报拉指据接提放政教数文斯新方无日时明是更最月有望期本术机权条来果样格次正此死比民气水求没治法活海清点然物特王现理生用由电界白的目直相看真眼着知码确社神种科程空立第等管类系经结给统置美老者而能自至色行表被西要见观规觉解计订认让记许论设识话该说请谢象账资走起路身边达过运还这进通道那部都里重量金长门问间队院难非面领题马高"
	traditionalCommon = "一三上下不且世並中主之也了事二五些交人什今他代以件任但位住何作你使來便保信個們候做傳像先光克兒入內全兩公共其再出分切別利到制則前力加動務化北區十南即卻原去又及反取受口只可司各合同名向告命和品員問單四回因國在地基報場外多大天太女她好如子學它安完定家密實將對導小少就展山工己已市師帳帶常平年幾度建式張強形很後得從德心必思性您情想意感應成我或戰戶所手才打把拉指接提據放政教數文斯新方於日明是時曰更書最會月有望期本東果格條業樣機權次正此死比民氣水求決沒治法活海清為無然爭爾物特王現理生產用由界當發白的目直相看真眼知確碼社神科程種空立第等管系結給統經總置美義老者而聲聽能自至與色萬著處行術表被裡西要見規覺觀解訂計記設許話該認說請論謝識變讓象資走起路身軍這通進運過道達還邊那部都重量金長門開間關院隊難電非面領頭題類馬體高麼點"
)

func commonHan(r rune, common string) float64 {
	const size = 3
	at := func(i int) rune {
		found, _ := utf8.DecodeRuneInString(common[i*size:])
		return found
	}
	n := len(common) / size
	if i := sort.Search(n, func(i int) bool { return at(i) >= r }); i < n && at(i) == r {
		return 1
	}
	return 0.45
}

// symbol rates characters of East Asian text that are neither letters nor ideographs.
func symbol(r rune) float64 {
	if r >= 0x3000 && r <= 0x303F || r >= 0xFF01 && r <= 0xFF5E || r >= 0x2010 && r <= 0x203B {
		return 0.8
	}
	return 0
}

func cyrillic(r rune) float64 {
	switch {
	case r >= 0x430 && r <= 0x44F, r == 0x451:
		return 1
	case r >= 0x410 && r <= 0x42F, r == 0x401:
		return 0.7
	case r >= 0x400 && r <= 0x45F:
		return 0.2 // Ukrainian, Serbian, …
	}
	return punctuation(r)
}

func script(table *unicode.RangeTable) func(r rune) float64 {
	return func(r rune) float64 {
		if unicode.Is(table, r) && (unicode.IsLower(r) || !unicode.IsUpper(r)) {
			return 0.95
		}
		if unicode.Is(table, r) {
			return 0.4
		}
		return punctuation(r)
	}
}

func punctuation(r rune) float64 {
	if r == 0xA0 || r >= 0x2010 && r <= 0x2026 || r == 0xAB || r == 0xBB || r == 0x2116 || r == 0x20AC {
		return 0.5
	}
	return -0.5
}

// Decoder converts the text of one mail to UTF-8. To guess a charset costs a thousand times
// more than to read text in a known one, so a mail in a thousand undeclared pieces must not
// cause a thousand guesses. The Decoder bounds how much it examines, and after that uses
// its last guess. The zero Decoder is ready. It is not safe for concurrent use.
type Decoder struct {
	looked int    // octets examined to guess
	latest string // the charset guessed last
}

// mostLooked bounds the octets of one mail that are examined to guess charsets.
const mostLooked = 16 << 10

// guess returns the likeliest charset: by a byte order mark, else by escape sequences, else
// UTF-8 if the text is valid, else the charset in which the bytes are valid and spell common
// letters.
func (d *Decoder) guess(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\xFF\xFE")):
		return "utf-16le"
	case bytes.HasPrefix(b, []byte("\xFE\xFF")):
		return "utf-16be"
	}
	if name := escaped(b); name != "" && ascii(b) {
		return name
	}
	if good, bad := countUTF8(b); good > 4*bad || bad == 0 {
		return "utf-8"
	}
	if d.looked >= mostLooked && d.latest != "" {
		return d.latest
	}
	sample := highSample(b)
	d.looked += max(len(sample), 128) // a short sample has a cost too
	d.latest = likeliest(sample)
	return d.latest
}
