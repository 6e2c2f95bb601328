// Package mime reads the structure of a mail. It turns bytes into a tree of parts with
// headers, decoded bodies and text. It never fails: whatever is malformed is read as a mail
// reader would show it, and recorded as a Defect, so that nothing is lost silently. It is
// pure and has no state. relay/mail applies the policy.
//
// The project is based on go-message, whose charset package and golang.org/x/text decode
// the charsets here. The structure is read by our own code, for four reasons: go-message's
// readers stop at the first malformed header, parameter, boundary or transfer encoding (by
// design; its issues 38 and 130), they take quadratic time in the depth of nesting, they do
// not limit the parts, and they copy each byte several times. This parser makes one pass
// and returns slices of the mail. Its time and memory are linear in the size of any mail.
package mime

// Limits bound what one mail may cost. Zero fields have the defaults. What exceeds a limit
// is not lost but read more coarsely, and recorded as a Defect.
type Limits struct {
	Depth        int // of nesting; deeper parts become parts of the deepest container. Default 50
	Parts        int // without containers; what follows is one opaque part. Default 1000
	HeaderBytes  int // of one header; later fields are dropped. Default 1 MiB
	HeaderFields int // of one header; later fields are dropped. Default 2000
	AllFields    int // of all headers; later fields are dropped. Default 50,000
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

// Part is the mail itself, or a part of it.
type Part struct {
	Header Header
	Type   string  // media type in lower case; never empty
	Params []Param // of Content-Type

	// Body is the body as it was transferred, a slice of the mail. The body of a
	// container spans its children.
	Body []byte

	// Parts are the children of a multipart, or the one message in a message/rfc822.
	Parts []*Part

	Defects []Defect

	// What the header says about the body, read once.
	transfer    transferEncoding
	disposition string
	named       []Param // the parameters of Content-Disposition
	filename    string
	decoder     *Decoder
}

// Decoder returns the decoder of the mail, for its other text.
func (p *Part) Decoder() *Decoder { return p.decoder }

// Param returns a parameter of Content-Type by its lower-case name, or "".
func (p *Part) Param(name string) string { return param(p.Params, name) }

// Encoded reports whether the body has to be decoded.
func (p *Part) Encoded() bool { return p.transfer == encBase64 || p.transfer == encQuoted }

// Quoted reports whether the body is in quoted-printable.
func (p *Part) Quoted() bool { return p.transfer == encQuoted }

// Container reports whether the part consists of other parts.
func (p *Part) Container() bool { return len(p.Parts) > 0 }

// IsMessage reports whether the part is an embedded message.
func (p *Part) IsMessage() bool { return p.Type == "message/rfc822" || p.Type == "message/global" }

// add records a defect, one of each kind. A mail of a million malformed lines must not cost
// a million defects.
func (p *Part) add(kind DefectKind, detail string) {
	for _, d := range p.Defects {
		if d.Kind == kind {
			return
		}
	}
	p.Defects = append(p.Defects, Defect{Kind: kind, Detail: detail})
}

// Defect is something malformed that was read nevertheless.
type Defect struct {
	Kind   DefectKind
	Detail string // one line; it may have words of the mail and must not be logged
	Size   int    // of an Epilogue, in octets
}

// DefectKind is the kind of a defect.
type DefectKind int

const (
	BadHeader   DefectKind = iota // a line that is no header field, or a header that does not end
	BadBoundary                   // a boundary that is missing, wrong or not closed
	BadEncoding                   // an unknown or broken transfer encoding
	BadCharset                    // an unknown, undeclared or wrong charset
	OverLimit                     // one of Limits was reached
	Epilogue                      // text after the last part, which no mail reader shows
)
