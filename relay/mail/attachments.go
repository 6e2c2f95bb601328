package mail

import (
	"fmt"
	"strings"
)

// attach applies the policy to what was filed.
func (c *composer) attach() *Refusal {
	switch {
	case c.sealed != "":
		c.mail.Attachments = c.files
		return refuse(Encrypted, "the mail is encrypted ("+c.sealed+"): only its recipient could read it")
	case len(c.files) == 0:
	case c.options.Attachments == SendAttachments:
		c.mail.Attachments = c.files
	case c.options.Attachments == StripAttachments:
		for i := range c.files {
			c.omit(AttachmentStripped, c.files[i].Size, c.files[i].Describe())
		}
	default:
		c.mail.Attachments = c.files
		return refuse(HasAttachment, "attachments cannot be sent from here: "+describeAll(c.files))
	}
	return nil
}

// describeAll names the first few files.
func describeAll(files []Attachment) string {
	const most = 3
	var names []string
	for i := range files[:min(len(files), most)] {
		names = append(names, files[i].Describe())
	}
	s := strings.Join(names, ", ")
	if n := len(files) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// Describe names a file for people: name, type and size.
func (a *Attachment) Describe() string {
	name := a.Filename
	if name == "" {
		name = "unnamed"
	}
	if len(name) > 100 {
		name = strings.ToValidUTF8(name[:100], "") + "..."
	}
	return fmt.Sprintf("%s (%s, %s)", name, cut(a.ContentType, 100), bytesText(a.Size))
}

func bytesText(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d kB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
