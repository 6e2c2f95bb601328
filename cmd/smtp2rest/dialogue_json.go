package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/emersion/go-smtp"
)

// sent is what came of a mail, for scripts.
type sent struct {
	Taken      bool            `json:"taken"`        // for every recipient
	ID         string          `json:"id,omitempty"` // by which the relay knows the mail
	Reply      string          `json:"reply"`        // the server's last
	Recipients []sentRecipient `json:"recipients"`
	Dialogue   []sentLine      `json:"dialogue"`
	TookMS     int64           `json:"took_ms"`
}

// sentRecipient is what one recipient's mail was answered.
type sentRecipient struct {
	Recipient string `json:"recipient"`
	Taken     bool   `json:"taken"`
	Reply     string `json:"reply"`
}

type sentLine struct {
	From string `json:"from"` // client or server
	Text string `json:"text"`
}

func (d *dialogue) sent(recipients []string) sent {
	reply := d.reply()
	s := sent{Taken: d.takenForAll(), Reply: reply, TookMS: d.took.Milliseconds(), Recipients: []sentRecipient{}, Dialogue: []sentLine{}}
	if m := regexp.MustCompile(`^250 2\.0\.0 (?:accepted|queued) (\S+)`).FindStringSubmatch(reply); m != nil {
		s.ID = m[1]
	}
	_, except, _ := strings.Cut(reply, " except ")
	for _, to := range recipients {
		r := sentRecipient{to, strings.HasPrefix(reply, "2") && !strings.Contains(except, "<"+to+">"), reply}
		if refused, ok := d.rcpts[to]; ok {
			r.Taken, r.Reply = false, refused
		}
		s.Recipients = append(s.Recipients, r)
	}
	for _, l := range d.lines {
		from := "server"
		if l.client {
			from = "client"
		}
		s.Dialogue = append(s.Dialogue, sentLine{from, l.text})
	}
	return s
}

// refusalText is a refusal as it went over the wire.
func refusalText(r *smtp.SMTPError) string {
	if r.EnhancedCode == smtp.NoEnhancedCode || r.EnhancedCode == smtp.EnhancedCodeNotSet {
		return fmt.Sprintf("%d %s", r.Code, r.Message)
	}
	return fmt.Sprintf("%d %d.%d.%d %s", r.Code, r.EnhancedCode[0], r.EnhancedCode[1], r.EnhancedCode[2], r.Message)
}
