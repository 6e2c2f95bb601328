package config

import (
	"crypto/x509"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// validate judges what one setting alone does not show.
func (l *loader) validate() {
	l.validateAPI()
	l.validateSender()
	l.validateAliases()
	l.validateFields()
	l.validateDelivery()
	l.validateLimits()
	for i := range l.cfg.Warming {
		l.validateWarming(i)
	}
	for i := range l.cfg.Listeners {
		l.validateListener(i)
	}
	l.validateLogins()
	l.validateAdmin()
	l.validateWebhook()
	l.validatePlaces()
}

func (l *loader) validateAPI() {
	a := &l.cfg.API
	if u, err := url.Parse(a.URL); err == nil && u.Scheme == "http" && !a.AllowInsecure && !loopbackHost(u.Hostname()) {
		l.problem("api.url", "found %s, which sends the key in the clear; write https://, or set api.allow_insecure = true if nobody can listen on the way", show(a.URL))
	}
	if a.ConnectTimeout > a.Timeout {
		path := "api.connect_timeout"
		if l.find(path).origin == "default" {
			a.ConnectTimeout = a.Timeout
		} else {
			l.problem(path, "found %s, longer than api.timeout (%s), of which it is a part", quote(FormatDuration(a.ConnectTimeout)), quote(FormatDuration(a.Timeout)))
		}
	}
	if a.CAFile != "" {
		if data, err := l.src.ReadFile(a.CAFile); err != nil {
			l.problem("api.ca_file", "cannot read %s: %v", show(a.CAFile), cause(err))
		} else if !x509.NewCertPool().AppendCertsFromPEM(data) {
			l.problem("api.ca_file", "%s has no certificate in PEM form", show(a.CAFile))
		}
	}
}

func (l *loader) validateSender() {
	s := &l.cfg.Sender
	if s.Email != "" && !l.bad["sender.domains"] && !slices.Contains(s.Domains, domainOf(s.Email)) {
		l.problem("sender.domains", "the domain of sender.email, %s, is not among them; add it, or change sender.email", quote(domainOf(s.Email)))
	}
	if s.Email == "" && l.src.NeedAPI && !l.bad["sender.email"] {
		l.problem("sender.email", "is not set; set it in the file or in the environment variable FROM_EMAIL, to an address in a domain that is verified with the provider")
	}
	if u, err := url.Parse(l.cfg.API.URL); err == nil && l.src.NeedAPI && !loopbackHost(u.Hostname()) && forDocumentation(domainOf(s.Email)) {
		l.warn("sender.email: found %s, of a domain that is only for documentation (RFC 2606): the provider can verify it for nobody; write an address in a domain of yours", quote(s.Email))
	}
	if (l.src.NeedAPI || l.src.NeedKey) && !l.cfg.API.Key.IsSet() && !l.secretRefused(apiKey()) {
		l.problem("api.key", "is not set; %s", l.ways(apiKey()))
	}
}

// forDocumentation reports whether a domain is one of those that RFC 2606,
// section 3, keeps for examples.
func forDocumentation(domain string) bool {
	for _, reserved := range []string{"example.com", "example.net", "example.org"} {
		if domain == reserved || strings.HasSuffix(domain, "."+reserved) {
			return true
		}
	}
	return false
}

// secretRefused reports whether there is a problem with one of the secret's
// sources already.
func (l *loader) secretRefused(from secretSource) bool {
	labels := []string{from.path, "environment " + from.env, "environment " + from.env + "_FILE", from.fileSetting}
	for _, name := range from.credentials {
		labels = append(labels, "credential "+name)
	}
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return slices.Contains(labels, p.Path) })
}

func (l *loader) validateDelivery() {
	d := &l.cfg.Delivery
	if d.Wait == 0 && l.cfg.Queue.Mode == NoQueue {
		l.problem("delivery.wait", "found \"0s\", and queue.mode is \"none\": no mail could ever be taken; change one of them")
	}
	if d.Retry.Max < d.Retry.First {
		l.problem("delivery.retry_max", "found %s, shorter than delivery.retry_first (%s)", quote(FormatDuration(d.Retry.Max)), quote(FormatDuration(d.Retry.First)))
	}
}

// validateFields keeps two pieces of a payload from having one name.
func (l *loader) validateFields() {
	m := &l.cfg.Mail
	payload := map[string]string{}
	for _, name := range []string{"to", "from", "subject", "html", "text", "reply_to"} {
		payload[name] = "the API itself"
	}
	if m.Attachments == SendAttachments {
		l.takeField(payload, "mail.attachments_field", m.Fields.Array)
		item := map[string]string{}
		l.takeField(item, "mail.attachment_filename", m.Fields.Filename)
		l.takeField(item, "mail.attachment_content", m.Fields.Content)
		l.takeField(item, "mail.attachment_content_type", m.Fields.ContentType)
		l.takeField(item, "mail.attachment_content_id", m.Fields.ContentID)
	}
	l.takeField(payload, "mail.header_field", m.HeaderField)
}

// takeField gives a name to a setting; taken says who has which.
func (l *loader) takeField(taken map[string]string, path, name string) {
	if name == "" {
		return
	}
	if other := taken[name]; other != "" {
		l.problem(path, "found %s, a field that %s has already", quote(name), other)
	}
	taken[name] = path
}

// loopbackHost reports whether only this machine reaches a host.
func loopbackHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

// tooWide reports whether a network lets strangers in. Networks that nobody
// routes to from outside may be of any size; of public addresses, /16 is what
// a large organisation has (IPv6: /32, what a provider is given), and nobody
// has more than that for the clients of one relay.
func tooWide(p netip.Prefix) bool {
	if inside(p) {
		return false
	}
	// 64:ff9b::/96 is how a NAT64 shows all of IPv4.
	return p.Bits() < usual(p) || netip.MustParsePrefix("64:ff9b::/96").Overlaps(p) && p.Bits() < 96+16
}

// tooMany reports whether networks let strangers in together, each of which is
// narrow enough: many of them may be all there are.
func tooMany(networks []netip.Prefix) bool {
	const most = 16 // of the widest
	total := 0.0
	for _, p := range networks {
		if !inside(p) && !tooWide(p) { // which is said by itself
			total += math.Pow(2, float64(usual(p)-p.Bits()))
		}
	}
	return total > most
}

// usual is how wide a public network may be.
func usual(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 16
	}
	return 32
}

// inside reports whether a network is one that nobody routes to from outside.
func inside(p netip.Prefix) bool {
	for _, own := range []string{
		"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
		"100.64.0.0/10", // RFC 6598: carriers' and overlay networks' own
		"::1/128", "fc00::/7", "fe80::/10",
	} {
		o := netip.MustParsePrefix(own)
		if p.Bits() >= o.Bits() && o.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
