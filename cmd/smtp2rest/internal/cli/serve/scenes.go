package serve

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/dialogue"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// scene is one mail of the demo and the results that are expected.
type scene struct {
	title string
	mail  dialogue.Envelope
	reply string         // how the last reply must begin; %ID stands for any word
	calls []expectedCall // the calls that the API must get, in any order
	event string         // the webhook event that must come; "" means that none is expected, and any may come
}

type expectedCall struct {
	to      string
	status  int
	subject string // "" is any
	text    string // part of the text; "" is any
}

const (
	greeting = "From: =?utf-8?q?Zo=C3=AB?= <zoe@sandbox.example>\r\nTo: Bob <bob@example.net>\r\n" +
		"Subject: =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4g4pi6?=\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/alternative; boundary=frontier\r\n\r\n" +
		"--frontier\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
		"Sch=C3=B6ne Gr=C3=BC=C3=9Fe!\r\n" +
		"--frontier\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		"PHA+U2Now7ZuZSA8Yj5HcsO8w59lPC9iPiE8L3A+\r\n--frontier--\r\n"

	cron = "From: root (Cron Daemon)\r\nTo: root\r\nSubject: Cron <root@web1> backup.sh\r\n\r\n" +
		"backup.sh: 3 files copied\r\n    /etc/passwd\r\n    /etc/group\r\n"
)

func note(to, subject string) []byte {
	return []byte("From: shop@sandbox.example\r\nTo: " + to + "\r\nSubject: " + subject + "\r\n\r\nYour order is on its way.\r\n")
}

func shop(subject string, to ...string) dialogue.Envelope {
	return dialogue.Envelope{From: "shop@sandbox.example", To: to, Data: note(strings.Join(to, ", "), subject)}
}

func scenes() []scene {
	return []scene{
		{
			title: "A multipart mail with a UTF-8 subject",
			mail:  dialogue.Envelope{From: "zoe@sandbox.example", To: []string{"bob@example.net"}, Data: []byte(greeting)},
			reply: "250 2.0.0 accepted %ID msg_",
			calls: []expectedCall{{"bob@example.net", 200, "Grüße aus Köln ☺", "Schöne Grüße!"}},
		},
		{
			title: "A cron mail from root, with no domain in From",
			mail:  dialogue.Envelope{From: "root@localhost", To: []string{"admin@example.net"}, Data: []byte(cron)},
			reply: "250 2.0.0 accepted %ID msg_",
			calls: []expectedCall{{"admin@example.net", 200, "Cron <root@web1> backup.sh", "3 files copied"}},
		},
		{
			title: "Two recipients, and the API suppresses one of them: the sender gets a bounce",
			mail:  shop("Order 4711", "eve@example.net", "suppressed@example.net"),
			reply: "250 2.0.0 accepted %ID except <suppressed@example.net>",
			calls: []expectedCall{
				{"eve@example.net", 200, "Order 4711", "on its way"},
				{"suppressed@example.net", 422, "Order 4711", ""},
				{"shop@sandbox.example", 200, "", "suppressed@example.net"},
			},
		},
		{
			title: "The same recipient again: the relay knows it now and refuses it at RCPT",
			mail:  shop("Order 4712", "suppressed@example.net"),
			reply: "550 5.7.1 <suppressed@example.net> suppressed:",
		},
		{
			title: "A recipient that is suppressed outright",
			mail:  shop("Order 4713", "suppressed+other@example.net"),
			reply: "550 5.7.1 suppressed: <suppressed+other@example.net>",
			calls: []expectedCall{{"suppressed+other@example.net", 422, "", ""}},
		},
		{
			title: "A mailbox that does not exist: the API takes the mail, a signed event says later that it bounced, and the sender gets a bounce",
			mail:  shop("Order 4714", "hardbounce@example.net"),
			reply: "250 2.0.0 accepted %ID msg_",
			calls: []expectedCall{
				{"hardbounce@example.net", 200, "Order 4714", ""},
				{"shop@sandbox.example", 200, "", "hardbounce@example.net"},
			},
			event: "bounced.hard",
		},
		{
			title: "The same recipient again, refused at RCPT",
			mail:  shop("Order 4715", "hardbounce@example.net"),
			reply: "550 5.1.1 <hardbounce@example.net> suppressed: hard bounce on",
		},
		{
			title: "The API says 429 with Retry-After: 1, and then accepts: the client never notices",
			mail:  shop("Order 4716", "ratelimited+1x1@example.net"),
			reply: "250 2.0.0 accepted %ID msg_",
			calls: []expectedCall{
				{"ratelimited+1x1@example.net", 429, "", ""},
				{"ratelimited+1x1@example.net", 200, "Order 4716", ""},
			},
		},
		{
			title: "A mail that the API finds invalid",
			mail:  shop("Order 4717", "invalid@example.net"),
			reply: "554 5.6.0 refused by the API:",
			calls: []expectedCall{{"invalid@example.net", 422, "", ""}},
		},
		{
			title: "The API fails: the mail is kept, and goes out when the API works again",
			mail:  shop("Order 4718", "down+1@example.net"),
			reply: "250 2.0.0 queued %ID",
			calls: []expectedCall{
				{"down+1@example.net", 500, "", ""},
				{"down+1@example.net", 200, "Order 4718", ""},
			},
		},
	}
}

// compare returns the first difference between what happened and what the scene expects.
func (sc scene) compare(d *dialogue.Dialogue, calls []provider.SandboxCall) error {
	if got := d.Reply(); !begins(got, sc.reply) {
		return fmt.Errorf("the reply is %q, want %q", got, sc.reply)
	}
	if len(calls) != len(sc.calls) {
		return fmt.Errorf("the API got %d calls, want %d", len(calls), len(sc.calls))
	}
	for _, want := range sc.calls {
		if !matchedBy(calls, want) {
			return fmt.Errorf("the API did not get %+v", want)
		}
	}
	return nil
}

// inOrder sorts the calls by recipient, in the order of the scene. The relay makes them at
// the same time, and the demo must look the same each time.
func (sc scene) inOrder(calls []provider.SandboxCall) []provider.SandboxCall {
	position := func(c provider.SandboxCall) int {
		return slices.IndexFunc(sc.calls, func(want expectedCall) bool { return want.to == c.To })
	}
	return slices.SortedStableFunc(slices.Values(calls), func(a, b provider.SandboxCall) int { return position(a) - position(b) })
}

// begins compares word by word. %ID matches any word. Of the last word, only the beginning
// has to match.
func begins(got, want string) bool {
	g, w := strings.Fields(got), strings.Fields(want)
	if len(g) < len(w) {
		return false
	}
	for i, word := range w {
		last := i == len(w)-1
		if word != "%ID" && g[i] != word && (!last || !strings.HasPrefix(g[i], word)) {
			return false
		}
	}
	return true
}

func matchedBy(calls []provider.SandboxCall, want expectedCall) bool {
	for _, c := range calls {
		var body struct{ Subject, Text string }
		if json.Unmarshal(c.Body, &body) != nil {
			continue
		}
		if c.To == want.to && c.Status == want.status &&
			(want.subject == "" || body.Subject == want.subject) && strings.Contains(body.Text, want.text) {
			return true
		}
	}
	return false
}
