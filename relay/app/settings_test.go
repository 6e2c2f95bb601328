package app

import (
	"bytes"
	"log/slog"
	"os"
	"reflect"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/logs"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// Every word that the configuration allows is a policy of relay/mail, which knows
// others only as the first one.
func TestMapping(t *testing.T) {
	for word, want := range map[string]mail.AttachmentPolicy{
		"refuse": mail.RefuseAttachments, "strip": mail.StripAttachments, "send": mail.SendAttachments,
	} {
		c := load(t, "https://api.example.com/api", "[mail]\nattachments = \""+word+"\"\n")
		if got := Mapping(c, "").Attachments; got != want {
			t.Errorf("attachments = %q is policy %s, want %s", word, got, want)
		}
	}
	for text, want := range map[string]mail.AttachmentPolicy{
		"": mail.StripAttachments, "attachments = \"strip\"": mail.StripAttachments, "attachments = \"send\"": mail.SendAttachments,
		"attachments = \"send\"\ninline = \"strip\"": mail.StripAttachments, "inline = \"refuse\"": mail.RefuseAttachments,
	} {
		if got := Mapping(load(t, "https://api.example.com/api", "[mail]\n"+text+"\n"), "").Inline; got != want {
			t.Errorf("%q is the policy %s for inline images, want %s", text, got, want)
		}
	}
	for word, want := range map[string]mail.SenderPolicy{"rewrite": mail.Rewrite, "refuse": mail.Refuse} {
		c := load(t, "https://api.example.com/api", "[sender]\nforeign = \""+word+"\"\n")
		if got := Mapping(c, "").ForeignSender; got != want {
			t.Errorf("foreign = %q is policy %s, want %s", word, got, want)
		}
	}
	o := Mapping(load(t, "https://api.example.com/api", "[mail]\nattachments_field = \"files\"\nattachment_filename = \"\"\n"+
		"attachment_content = \"data\"\nattachment_content_type = \"\"\nattachment_content_id = \"cid\"\nheader_field = \"headers\"\n"), "")
	want := &nexuspromail.Format{Attachments: "files", Content: "data", ContentID: "cid", Headers: "headers"}
	if !reflect.DeepEqual(o.Format, want) || !o.PassHeaders || o.Default.Email != "relay@sandbox.example" || len(o.Domains) != 1 {
		t.Errorf("the mapping is %+v", o)
	}
}

func TestNewLog(t *testing.T) {
	for _, tt := range []struct {
		format string
		want   string
	}{{"json", `"msg":"loud"`}, {"text", "msg=loud"}} {
		var b bytes.Buffer
		log := NewLog(&b, logs.Settings{Level: slog.LevelWarn, Format: logs.Format(tt.format)}, os.LookupEnv)
		log.Info("quiet")
		log.Warn("loud")
		log.Close()
		if !bytes.Contains(b.Bytes(), []byte(tt.want)) || bytes.Contains(b.Bytes(), []byte("quiet")) {
			t.Errorf("%s writes %q", tt.format, b.String())
		}
	}
}
