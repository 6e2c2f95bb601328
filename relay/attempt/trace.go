package attempt

import (
	"bytes"
	"regexp"
	"strings"
)

// traceparent is what W3C Trace Context (section 3.2) allows of the versions
// there are: hex digits, so that nothing else of a mail can get into the log.
var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// maxTraceHeader bounds how much of a mail is looked at.
const maxTraceHeader = 64 << 10

// Trace is the traceparent in a mail's header, "" when there is none that is
// valid: programs that trace their requests can then find their mail.
func Trace(raw []byte) string {
	for line := range bytes.Lines(raw[:min(len(raw), maxTraceHeader)]) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return "" // the end of the header
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if !bytes.EqualFold(bytes.TrimSpace(name), []byte("traceparent")) {
			continue
		}
		if value = bytes.TrimSpace(value); traceparent.Match(value) && !invalid(string(value)) {
			return string(value)
		}
		return ""
	}
	return ""
}

// invalid are the values that the specification forbids though their form is
// right: version ff, and ids of nothing but zeros.
func invalid(value string) bool {
	version, trace, parent := value[:2], value[3:35], value[36:52]
	return version == "ff" || strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == ""
}
