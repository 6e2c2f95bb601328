package mime

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// guess decodes text of an unknown charset.
func guess(b []byte) string {
	return convert(guessName(b), b)
}

// escaped recognises the charsets that announce themselves by escape
// sequences within 7 bits.
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

// guessName names the likeliest charset: a byte order mark, then escape
// sequences, then UTF-8, then the one whose rules the bytes keep and in which
// they spell common letters.
func guessName(b []byte) string {
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
	sample := highSample(b)
	if !textual(sample) {
		return "windows-1252" // a file, whatever it says
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

// highSample returns the bytes that say something of the charset: those that
// are not ASCII, with their second halves, up to a limit.
func highSample(b []byte) []byte {
	const limit = 8 << 10
	i := bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf })
	if i < 0 {
		return nil
	}
	return b[max(i-1, 0):min(len(b), i+limit)]
}

// textual reports whether a sample has no control characters, as files do.
func textual(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != 0x1B {
			return false
		}
	}
	return true
}

// candidate is a charset that may be guessed. common says how usual a
// character is in text of that charset, from 0 to 1; one below 0 counts against
// it.
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
			sum -= 0.7 // another alphabet within a word: it is Western text
		}
		prev = r
	}
	if n < 2 || bad > 1 && bad*20 > n {
		return 0
	}
	s := (sum - 2*float64(bad)) / float64(n)
	if c.name == "windows-1255" && n >= 15 {
		s += 0.06 // its letters are Cyrillic's small ones, but not all of those
	}
	if c.name != "shift_jis" {
		s -= lowHigh(b) // only Shift JIS has many bytes there
	}
	return s
}

// lowHigh returns which part of the bytes above ASCII is in 0x80 to 0x9F.
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

// doubleByte are the East Asian charsets. Text of another alphabet that happens
// to keep their rules shows as rare ideographs.
func doubleByte() []candidate {
	return []candidate{
		{"shift_jis", kana},
		{"euc-jp", kana},
		{"euc-kr", hangul},
		{"gb18030", simplified},
		{"big5", traditional},
	}
}

// singleByte are told apart by what is a letter, and its case. Western text is
// what is left: its letters stand among ASCII ones.
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

// The commonest characters of each way of writing, among which both have some:
// a running text consists of them by a third and more, one that is decoded
// wrongly hardly ever.
const (
	simplifiedCommon  = "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运请订单账户密码重置您好谢谢"
	traditionalCommon = "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最重並物手應戰向頭文體政美相見被利什二等產或新己制身果加西斯月話合回特代內信表化老給世位次度門任常先海通教兒原東聲提立及比員解水名真論處走義各入幾口認條平系氣題活爾更別打女變四神總何電數安少報才結反受目太量再感建務做接必場件計管期市直德資命山金指克許統區保至隊形社便空決治展馬科司五基眼書非則聽白卻界達光放強即像難且權思王象完設式色路記南品住告類求據程北邊死張該交規萬取拉格望覺術領共確傳師觀清今切院讓識候帶導爭運請訂單帳戶密碼重置您好謝謝曰"
)

func commonHan(r rune, common string) float64 {
	for _, c := range common {
		if c == r {
			return 1
		}
	}
	return 0.45
}

// symbol rates what is neither letter nor ideograph in East Asian text.
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
