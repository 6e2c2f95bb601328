// Package mime reads the structure of a mail: bytes in, a tree of parts with
// their headers, decoded bodies and text out. It never fails and never loses
// anything silently: whatever is broken is read as a mail reader would show it
// and named as a Defect. It is pure, holds no state, and knows nothing of what
// the mail is for; relay/mail above it is the policy.
//
// The project's base for mail is go-message, and its charset package and
// golang.org/x/text decode every charset here. The structure is read by code
// of our own because go-message's readers end at the first malformed header,
// parameter, boundary or transfer encoding (its issues 38 and 130: by design),
// cost quadratic time in the depth of nesting, have no limit on parts, and
// copy each byte several times. This parser slices the mail instead: one pass,
// time and memory linear in its size whatever is in it.
package mime

// Limits bound what one mail may cost. Zero fields take the defaults. What is
// over a limit is not lost: it is read more coarsely, and a Defect says so.
type Limits struct {
	Depth        int // nesting; deeper parts count as parts of the deepest container. Default 50
	Parts        int // in all, but for containers; what follows is one opaque part. Default 1000
	HeaderBytes  int // of one header block; later fields are dropped. Default 1 MiB
	HeaderFields int // of one header block; later fields are dropped. Default 2000
	AllFields    int // of all header blocks; later fields are dropped. Default 50,000
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Depth, 50)
	setDefault(&l.Parts, 1000)
	setDefault(&l.HeaderBytes, 1<<20)
	setDefault(&l.HeaderFields, 2000)
	setDefault(&l.AllFields, 50_000)
	return l
}

func setDefault(v *int, def int) {
	if *v <= 0 {
		*v = def
	}
}

// Part is one entity of a mail: the mail itself, or a part of it.
type Part struct {
	Header Header
	Type   string  // media type in lower case; never empty
	Params []Param // of Content-Type

	// Body is the part's body as transferred, a slice of the mail. For a
	// container it spans the children.
	Body []byte

	// Parts are the children: of a multipart, or the one message in a
	// message/rfc822.
	Parts []*Part

	Defects []Defect

	// The rest is what the header says, read once.
	transfer    transferEncoding
	disposition string
	named       []Param // of Content-Disposition
	filename    string
	decoder     *Decoder
}

// Decoder is for what else there is to decode of the mail.
func (p *Part) Decoder() *Decoder { return p.decoder }

// Param returns a Content-Type parameter by its lower-case name, or "".
func (p *Part) Param(name string) string { return param(p.Params, name) }

// Encoded reports whether the body has to be decoded to find what is in it.
func (p *Part) Encoded() bool { return p.transfer == encBase64 || p.transfer == encQuoted }

// Quoted reports whether the body is in quoted-printable.
func (p *Part) Quoted() bool { return p.transfer == encQuoted }

// Container reports whether the part consists of other parts.
func (p *Part) Container() bool { return len(p.Parts) > 0 }

// add records a defect once per kind, so that a mail of a million broken lines
// does not cost a million defects.
func (p *Part) add(kind DefectKind, detail string) {
	for _, d := range p.Defects {
		if d.Kind == kind {
			return
		}
	}
	p.Defects = append(p.Defects, Defect{Kind: kind, Detail: detail})
}

// Defect is something malformed that was read all the same.
type Defect struct {
	Kind   DefectKind
	Detail string // one line, which may hold words of the mail: for whoever has the mail, and no log
	Size   int    // of an Epilogue, in octets
}

// DefectKind is a closed set.
type DefectKind int

const (
	BadHeader   DefectKind = iota // a header line that is none, or a header that does not end
	BadBoundary                   // a boundary that is missing, wrong or not closed
	BadEncoding                   // a transfer encoding that is unknown or broken
	BadCharset                    // a charset that is unknown, undeclared or wrong
	OverLimit                     // one of Limits was reached
	Epilogue                      // text after the last part, which no mail reader shows
)
