package main

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/payload"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// explanation is what would become of a mail.
type explanation struct {
	Assumed string          `json:"assumed_sender,omitempty"` // where no sender is set
	Refused string          `json:"refused,omitempty"`        // what the client would be told
	Read    *explainedRead  `json:"read,omitempty"`           // of a mail that would be refused
	Calls   []explainedCall `json:"calls"`
	Notes   []explainedNote `json:"notes"`
}

type explainedRead struct {
	From    string   `json:"from"`
	Subject string   `json:"subject"`
	Files   []string `json:"files"`
}

type explainedCall struct {
	To   string          `json:"to"`
	Body json.RawMessage `json:"body"` // what the API would be sent
}

type explainedNote struct {
	Kind    string `json:"kind"`
	Detail  string `json:"detail"`
	LeftOut bool   `json:"left_out"` // the API does not get it; else it was read or changed so
}

func explainJSON(t *terminal, raw []byte, from, assumed string, to []string, o payload.Options) error {
	e := explanation{Assumed: assumed, Calls: []explainedCall{}, Notes: []explainedNote{}}
	var told explanations
	o.Explain = told.add
	mail, err := payload.Map(raw, from, o)
	if err != nil {
		e.Refused = reply.From(intake.Refusal(err)).String()
		if r, ok := errors.AsType[*payload.Refusal](err); ok && r.Read != nil {
			e.Read = &explainedRead{From: r.Read.From.Email, Subject: r.Read.Subject, Files: []string{}}
			for i := range r.Read.Attachments {
				e.Read.Files = append(e.Read.Files, r.Read.Attachments[i].Describe())
			}
			e.note(told)
		}
		return errors.Join(printJSON(t.out, e), &exitError{exitFailed, errRefused})
	}
	body, err := mail.Encode()
	if err != nil {
		return err
	}
	for _, rcpt := range to {
		text, err := io.ReadAll(body.Open(rcpt))
		if err != nil {
			return err
		}
		e.Calls = append(e.Calls, explainedCall{rcpt, text})
	}
	e.note(told)
	return printJSON(t.out, e)
}

func (e *explanation) note(list explanations) {
	for _, n := range list {
		e.Notes = append(e.Notes, explainedNote{n.kind.String(), n.words, n.kind.LeftOut()})
	}
}
