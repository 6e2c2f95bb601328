// Command enmime writes what jhillyerd/enmime reads in each mail, as JSON
// lines. It is a module of its own, so that enmime is no dependency of ours.
package main

import (
	"encoding/json"
	"os"

	"github.com/jhillyerd/enmime/v2"
)

type address struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

type file struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type result struct {
	File        string    `json:"file"`
	Error       string    `json:"error,omitempty"`
	Subject     string    `json:"subject"`
	From        []address `json:"from"`
	Text        string    `json:"text"`
	HTML        string    `json:"html"`
	Attachments []file    `json:"attachments"`
}

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, path := range os.Args[1:] {
		if err := out.Encode(read(path)); err != nil {
			panic(err)
		}
	}
}

func read(path string) result {
	r := result{File: path}
	f, err := os.Open(path)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	defer f.Close()
	// As tolerant as its own tests can make it.
	p := enmime.NewParser(enmime.SkipMalformedParts(true), enmime.MultipartWOBoundaryAsSinglePart(true),
		enmime.StripMediaTypeInvalidCharacters(true), enmime.SetReadPartErrorPolicy(enmime.AllowCorruptTextPartErrorPolicy))
	e, err := p.ReadEnvelope(f)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.Subject, r.Text, r.HTML = e.GetHeader("Subject"), e.Text, e.HTML
	for _, d := range e.Errors {
		if d.Name == enmime.ErrorPlainTextFromHTML {
			r.Text = "" // enmime made it of the html
		}
	}
	list, _ := e.AddressList("From")
	for _, a := range list {
		r.From = append(r.From, address{a.Name, a.Address})
	}
	for _, parts := range [][]*enmime.Part{e.Attachments, e.Inlines, e.OtherParts} {
		for _, p := range parts {
			r.Attachments = append(r.Attachments, file{p.FileName, p.ContentType})
		}
	}
	return r
}
