package payload

import (
	"bytes"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

// Identity is by what people and programs know a mail. It can be read of a
// mail that Map refuses as well.
type Identity struct {
	MessageID   string // without angles
	Subject     string
	Author      string // the address in From, as it stands
	TraceParent string // W3C Trace Context; "" unless it is valid
}

// Identify reads a mail's header and nothing else.
func Identify(raw []byte) Identity {
	h := mime.Parse(raw[:headerEnd(raw)], mime.Limits{}).Header
	return Identity{
		MessageID:   messageID(h, ""),
		Subject:     cut(mime.DecodeWords(h.Get("Subject"), ""), maxSubject),
		Author:      firstMailbox(mime.ParseAddresses(h.Get("From"), "")).Email,
		TraceParent: traceParent(h),
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

func messageID(h mime.Header, hint string) string {
	return strings.Trim(mime.DecodeWords(h.Get("Message-ID"), hint), "<> ")
}

// traceParent is the mail's place in a distributed trace, as programs write it
// that trace what they do (W3C Trace Context section 3.2). One that is not
// valid is none: the specification has it ignored.
func traceParent(h mime.Header) string {
	v := strings.TrimSpace(string(h.Get("traceparent")))
	const length = len("00-") + 32 + len("-") + 16 + len("-00")
	if len(v) < length || h.Count("traceparent") != 1 {
		return ""
	}
	version, trace, parent, flags := v[:2], v[3:35], v[36:52], v[53:55]
	switch {
	case v[2] != '-' || v[35] != '-' || v[52] != '-',
		!isHex(version) || !isHex(trace) || !isHex(parent) || !isHex(flags),
		version == "ff", // forbidden
		version == "00" && len(v) > length,
		len(v) > length && v[length] != '-', // a later version may have more
		strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == "":
		return ""
	}
	return v[:length]
}

// isHex allows lower case only, as the specification does.
func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
