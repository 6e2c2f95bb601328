package mail

import "strconv"

// Omission says what of a mail was left out, changed or repaired: the kind, how
// many pieces and how large they are. It holds no word of the mail, not even a
// file's name, so that it can be logged and stored. Options.Explain has the words.
type Omission struct {
	Kind  OmissionKind
	Count int   // pieces
	Size  int64 // of all of them in octets, as far as that says anything
}

// String is "3 (9 kB)", without the kind.
func (o Omission) String() string {
	if o.Size == 0 {
		return strconv.Itoa(o.Count)
	}
	return strconv.Itoa(o.Count) + " (" + bytesText(o.Size) + ")"
}

// OmissionKind is a closed set, used as a metric label.
type OmissionKind int

const (
	AttachmentStripped OmissionKind = iota // left out, with a notice in the bodies
	SignatureDropped                       // a signature, which means nothing without the signed bytes
	AlternativeDropped                     // a version of the body besides text and html
	PartDropped                            // any other part that means nothing alone
	HeadersDropped                         // header fields the payload has no field for
	SenderRewritten                        // From is outside the verified domains
	SenderRepaired                         // From was missing, malformed or more than one
	ReplyToChanged                         // Reply-To was malformed or more than one
	HeaderRepaired                         // malformed header lines
	StructureRepaired                      // malformed multipart structure
	EncodingRepaired                       // a broken or unknown transfer encoding
	CharsetRepaired                        // a charset that was missing, unknown or wrong
	EpilogueDropped                        // text after the last part
	OverLimit                              // read more coarsely, because one of Limits was reached
	EmbeddedMessage                        // a forwarded message became part of the body
	UnpackedFile                           // files inside the text (uuencode) or a winmail.dat
	NameDropped                            // the file name of a text that is shown as a body
)

var omissionNames = [...]string{
	"attachment_stripped", "signature_dropped", "alternative_dropped", "part_dropped", "headers_dropped",
	"sender_rewritten", "sender_repaired", "reply_to_changed", "header_repaired", "structure_repaired",
	"encoding_repaired", "charset_repaired", "epilogue_dropped", "over_limit", "embedded_message", "unpacked_file", "name_dropped",
}

// OmissionKinds lists every kind, for tables that must be complete.
func OmissionKinds() []OmissionKind {
	kinds := make([]OmissionKind, len(omissionNames))
	for i := range kinds {
		kinds[i] = OmissionKind(i)
	}
	return kinds
}

// LeftOut reports whether something of the mail is not in what the API gets. The
// other kinds say how it was read or changed.
func (k OmissionKind) LeftOut() bool {
	switch k {
	case AttachmentStripped, SignatureDropped, AlternativeDropped, PartDropped, HeadersDropped, EpilogueDropped, NameDropped:
		return true
	}
	return false
}

// String is the kind's name in logs and metrics.
func (k OmissionKind) String() string {
	if k < 0 || int(k) >= len(omissionNames) {
		return "unknown"
	}
	return omissionNames[k]
}
