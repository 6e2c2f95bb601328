package mail

import (
	"bytes"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// Identity is by what people and programs know a mail. It can be read of a
// mail that Map refuses as well.
type Identity struct {
	MessageID string // without angles
	Subject   string
	Author    string // the address in From, as it stands
}

// Identify reads a mail's header and nothing else.
func Identify(raw []byte) Identity {
	root := mime.Parse(raw[:headerEnd(raw)], mime.Limits{})
	h, d := root.Header, root.Decoder()
	return Identity{
		MessageID: messageID(d, h, ""),
		Subject:   cut(d.Words(h.Get("Subject"), ""), maxSubject),
		Author:    firstMailbox(d.Addresses(h.Get("From"), "")).Email,
	}
}

// headerEnd is where the first empty line is, in which way ever lines end.
func headerEnd(raw []byte) int {
	const most = 256 << 10
	raw = raw[:min(len(raw), most)]
	end := len(raw)
	for _, empty := range [...]string{"\r\n\r\n", "\n\n", "\r\r"} {
		if i := bytes.Index(raw[:end], []byte(empty)); i >= 0 {
			end = i + len(empty)
		}
	}
	return end
}

func messageID(d *mime.Decoder, h mime.Header, hint string) string {
	return strings.Trim(d.Words(h.Get("Message-ID"), hint), "<> ")
}
