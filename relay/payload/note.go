package payload

// Note says what of a mail was left out, changed or repaired.
type Note struct {
	Kind   NoteKind
	Detail string // one line, for people
}

// NoteKind is a closed set, used as a metric label.
type NoteKind int

const (
	AttachmentStripped NoteKind = iota // left out, with a notice in the bodies
	SignatureDropped                   // a signature, which means nothing without the signed bytes
	AlternativeDropped                 // a version of the body besides text and html
	PartDropped                        // any other part that means nothing alone
	HeadersDropped                     // header fields the payload has no field for
	SenderRewritten                    // From is outside the verified domains
	SenderRepaired                     // From was missing, malformed or more than one
	ReplyToChanged                     // Reply-To was malformed or more than one
	HeaderRepaired                     // malformed header lines
	StructureRepaired                  // malformed multipart structure
	EncodingRepaired                   // a broken or unknown transfer encoding
	CharsetRepaired                    // a charset that was missing, unknown or wrong
	EpilogueDropped                    // text after the last part
	OverLimit                          // read more coarsely, because one of Limits was reached
	EmbeddedMessage                    // a forwarded message became part of the body
	UnpackedFile                       // files inside the text (uuencode) or a winmail.dat
)

var noteNames = [...]string{
	"attachment_stripped", "signature_dropped", "alternative_dropped", "part_dropped", "headers_dropped",
	"sender_rewritten", "sender_repaired", "reply_to_changed", "header_repaired", "structure_repaired",
	"encoding_repaired", "charset_repaired", "epilogue_dropped", "over_limit", "embedded_message", "unpacked_file",
}

// NoteKinds lists every kind, for tables that must be complete.
func NoteKinds() []NoteKind {
	kinds := make([]NoteKind, len(noteNames))
	for i := range kinds {
		kinds[i] = NoteKind(i)
	}
	return kinds
}

// LeftOut reports whether something of the mail is not in what the API gets. The
// other kinds say how it was read or changed.
func (k NoteKind) LeftOut() bool {
	switch k {
	case AttachmentStripped, SignatureDropped, AlternativeDropped, PartDropped, HeadersDropped, EpilogueDropped:
		return true
	}
	return false
}

// String is the kind's name in logs and metrics.
func (k NoteKind) String() string {
	if k < 0 || int(k) >= len(noteNames) {
		return "unknown"
	}
	return noteNames[k]
}
