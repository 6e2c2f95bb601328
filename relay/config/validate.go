package config

import (
	"crypto/tls"
	"crypto/x509"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/warm"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// validate finds problems that depend on more than one setting, or on files.
func (l *loader) validate() {
	l.validateAPI()
	l.validateSender()
	l.validateAccounts()
	l.validateAliases()
	l.validateFields()
	l.validateDelivery()
	l.validateArchive()
	l.validateStore()
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
	l.validateNotify()
	l.validateForwards()
	l.validatePlaces()
	l.validateDataDir()
	l.validateSpool()
}

func (l *loader) validateAPI() {
	a := &l.cfg.API
	l.validateURL("api.url", a.URL)
	if a.ConnectTimeout > a.Timeout {
		path := "api.connect_timeout"
		if l.find(path).origin == "default" {
			a.ConnectTimeout = a.Timeout
		} else {
			l.problem(path, "found %s, longer than api.timeout (%s), of which it is a part", settings.Quote(settings.FormatDuration(a.ConnectTimeout)), settings.Quote(settings.FormatDuration(a.Timeout)))
		}
	}
	if a.CAFile != "" {
		if data, err := l.src.ReadFile(a.CAFile); err != nil {
			l.problem("api.ca_file", "cannot read %s: %v", settings.Show(a.CAFile), cause(err))
		} else if !x509.NewCertPool().AppendCertsFromPEM(data) {
			l.problem("api.ca_file", "%s has no certificate in PEM form", settings.Show(a.CAFile))
		}
	}
}

// validateURL refuses an address to which a key would travel in the clear.
func (l *loader) validateURL(path, address string) {
	if u, err := url.Parse(address); err == nil && u.Scheme == "http" && !l.cfg.API.AllowInsecure && !loopbackHost(u.Hostname()) {
		l.problem(path, "found %s, which sends the key in the clear; write https://, or set api.allow_insecure = true if nobody can listen on the way", settings.Show(address))
	}
}

func (l *loader) validateSender() {
	s := &l.cfg.Sender
	if s.Email != "" && !l.bad["sender.domains"] && !slices.Contains(s.Domains, domainOf(s.Email)) {
		l.problem("sender.domains", "the domain of sender.email, %s, is not among them; add it, or change sender.email", settings.Quote(domainOf(s.Email)))
	}
	if s.Email == "" && l.src.NeedAPI && !l.bad["sender.email"] {
		l.problem("sender.email", "is not set; set it in the file or in the environment variable FROM_EMAIL, to an address in a domain that is verified with the provider")
	}
	if u, err := url.Parse(l.cfg.API.URL); err == nil && l.src.NeedAPI && !loopbackHost(u.Hostname()) && forDocumentation(domainOf(s.Email)) {
		l.warn("sender.email: found %s, of a domain that is only for documentation (RFC 2606): the provider can verify it for nobody; write an address in a domain of yours", settings.Quote(s.Email))
	}
	if (l.src.NeedAPI || l.src.NeedKey) && !l.cfg.API.Key.IsSet() && !l.secretRefused(l.secretAt("api.key")) {
		l.problem("api.key", "is not set; %s", l.ways(l.secretAt("api.key")))
	}
}

// forDocumentation reports whether a domain is reserved for examples (RFC 2606
// section 3).
func forDocumentation(domain string) bool {
	for _, reserved := range []string{"example.com", "example.net", "example.org"} {
		if domain == reserved || strings.HasSuffix(domain, "."+reserved) {
			return true
		}
	}
	return false
}

// secretRefused reports whether there is already a problem with a source of the
// secret.
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
		l.problem("delivery.retry_max", "found %s, shorter than delivery.retry_first (%s)", settings.Quote(settings.FormatDuration(d.Retry.Max)), settings.Quote(settings.FormatDuration(d.Retry.First)))
	}
}

// validateArchive refuses copies that nothing would keep.
func (l *loader) validateArchive() {
	if l.cfg.Queue.Mode != NoQueue {
		return
	}
	if l.cfg.ArchiveBcc != "" {
		l.problem("archive_bcc", "is set, and queue.mode is \"none\": copies are sent from the queue; change one of them")
	}
	for i, a := range l.cfg.Accounts {
		if path := l.accountAt(i, "archive_bcc"); a.ArchiveBcc != "" && l.find(path).origin == "file" {
			l.problem(path, "is set, and queue.mode is \"none\": copies are sent from the queue; change one of them")
		}
	}
}

// validateStore finds a database that nothing would be kept in.
func (l *loader) validateStore() {
	if l.cfg.Store.URL.IsSet() && l.cfg.Queue.Mode == NoQueue {
		l.problem("store.url", "is set, and queue.mode is \"none\": nothing would be kept there; change one of them")
	}
}

// loopbackHost reports whether only this machine can reach a host.
func loopbackHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

// tooWide reports whether a network contains strangers. Private networks may have any
// size. Of public addresses a large organisation has a /16 (IPv6: a /32), and nobody
// needs more for the clients of one relay.
func tooWide(p netip.Prefix) bool {
	if inside(p) {
		return false
	}
	// A NAT64 maps all of IPv4 into 64:ff9b::/96.
	return p.Bits() < usual(p) || netip.MustParsePrefix("64:ff9b::/96").Overlaps(p) && p.Bits() < 96+16
}

// tooMany reports whether networks that are each narrow enough contain strangers
// together: enough of them are the whole Internet.
func tooMany(networks []netip.Prefix) bool {
	const most = 16 // networks of the largest size
	total := 0.0
	for _, p := range networks {
		if !inside(p) && !tooWide(p) { // that is a problem of its own
			total += math.Pow(2, float64(usual(p)-p.Bits()))
		}
	}
	return total > most
}

// usual is the shortest prefix that a public network may have.
func usual(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 16
	}
	return 32
}

// inside reports whether a network is private.
func inside(p netip.Prefix) bool {
	for _, own := range []string{
		"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
		"100.64.0.0/10", // RFC 6598: of carriers and overlay networks
		"::1/128", "fc00::/7", "fe80::/10",
	} {
		o := netip.MustParsePrefix(own)
		if p.Bits() >= o.Bits() && o.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

// validateLimits finds limits that another limit makes unreachable.
func (l *loader) validateLimits() {
	c := &l.cfg.Limits
	if l.bad["limits.memory"] {
		return
	}
	if idle := int64(c.Connections) * smtpd.ConnectionBytes; idle > c.Memory/2 && !l.bad["limits.connections"] {
		l.problem("limits.memory", "found %s, of which limits.connections = %d alone may take %s; write at least %s, or allow fewer connections",
			settings.Quote(settings.FormatSize(c.Memory)), c.Connections, settings.Quote(settings.FormatSize(idle)), settings.Quote(settings.FormatSize(2*idle)))
		return
	}
	if fits := LargestMail(*c); c.MessageBytes > fits && !l.bad["limits.message_size"] && !l.bad["limits.connections"] {
		if l.find("limits.message_size").origin == "default" {
			c.MessageBytes = fits
			return
		}
		// Clients learn limits.message_size before they send (RFC 1870). Mail of that
		// size must fit into memory, or it could never be sent.
		needs := (memoryFor(c.MessageBytes, c.Connections) + mib - 1) / mib * mib
		l.problem("limits.message_size", "found %s, and a text of that size needs more than limits.memory; write at most %s, or limits.memory = %s",
			settings.Quote(settings.FormatSize(c.MessageBytes)), settings.Quote(settings.FormatSize(fits)), settings.Quote(settings.FormatSize(needs)))
	}
}

// LargestMail returns the size of the largest mail for which there is memory if nothing
// else but connections takes any: a text beside them, and one other usual mail alone.
func LargestMail(c Limits) int64 {
	fits := int64(sort.Search(int(c.Memory/2/kib), func(n int) bool { return memoryFor(int64(n+1)*kib, c.Connections) > c.Memory }))
	return fits * kib
}

// memoryFor returns the memory that a mail needs. While it is received, it may take up to
// half of all memory. Mapping a text has room beside the connections; mapping any other
// usual mail may take half as much again as there is (smtpd/budget).
func memoryFor(size int64, connections int) int64 {
	return max(2*size, size+mail.MostCost(size)+int64(connections)*smtpd.ConnectionBytes, (size+mail.UsualCost(size))*2/3)
}

func (l *loader) validateListener(i int) {
	all := l.cfg.Listeners
	one, prefix := all[i], settings.Numbered("listener", i, len(all))
	if l.bad[prefix+".address"] || l.bad[prefix+".networks"] {
		return
	}
	l.validateTLS(one, prefix)
	l.validateAuth(one, prefix)
	if isUnix(one) && len(one.ProxyFrom) > 0 {
		l.problem(prefix+".proxy_from", "a proxy is known by its address, and clients of %s have none", settings.Show(one.Address))
	}
	l.validateReach(one, prefix)
	if private(one) || one.RequireAuth {
		return
	}
	var useful bool
	for _, network := range one.Networks {
		useful = useful || !network.Addr().IsLoopback()
		if tooWide(network) {
			l.problem(prefix+".networks", "found %s on %s, which others can reach: that is an open relay, free for anyone's spam; write the networks of your own clients, as in %s",
				settings.Quote(network.String()), settings.Show(one.Address), `["10.1.0.0/16"]`)
		}
	}
	if tooMany(one.Networks) {
		l.problem(prefix+".networks", "found %d networks on %s, which others can reach: together they hold more public addresses than one operator's clients have, and so are an open relay; write the networks of your own clients, as in %s",
			len(one.Networks), settings.Show(one.Address), `["10.1.0.0/16"]`)
	}
	if !useful && !(len(l.cfg.Users) > 0 && canLogIn(one)) {
		l.warn("%s: nobody else can send through %s: %s.networks has only this machine", prefix, one.Address, prefix)
	}
}

// validateReach finds ways to send that go around networks.
func (l *loader) validateReach(one smtpd.Listener, prefix string) {
	for _, proxies := range one.ProxyFrom {
		if tooWide(proxies) {
			l.problem(prefix+".proxy_from", "found %s: whoever can reach %s from there is believed to be any client they name, and could relay as one of networks; write the addresses of your own proxies, as in %s",
				settings.Quote(proxies.String()), settings.Show(one.Address), `["10.1.0.7/32"]`)
		}
	}
	if isUnix(one) && one.SocketMode&0o002 != 0 && !one.RequireAuth {
		l.warn("%s: everybody on this machine can send through %s: its socket_mode is %04o", prefix, one.Address, one.SocketMode)
	}
}

// canLogIn reports whether a listener ever accepts a password.
func canLogIn(l smtpd.Listener) bool { return l.TLS.On() || l.AuthWithoutTLS }

func (l *loader) validateAuth(one smtpd.Listener, prefix string) {
	switch {
	case !one.RequireAuth || l.bad["users_file"]:
	case len(l.cfg.Users) == 0:
		l.problem(prefix+".require_auth", "found true, and there is nobody who could log in; set users_file, or write a [[user]]")
	case !canLogIn(one):
		l.problem(prefix+".require_auth", "found true, and no way in which a password may travel; set tls, or auth_without_tls = true if nobody can listen on the way")
	}
}

func isUnix(l smtpd.Listener) bool { return strings.HasPrefix(l.Address, "unix:") }

// private reports whether only this machine can reach a listener. A proxy forwards
// others, and the address of a socket from systemd is not known yet.
func private(l smtpd.Listener) bool {
	host, _, err := net.SplitHostPort(l.Address)
	return isUnix(l) || err == nil && loopbackHost(host) && len(l.ProxyFrom) == 0
}

// validateTLS also reads the files, so that a wrong certificate is reported before
// anything stops working.
func (l *loader) validateTLS(one smtpd.Listener, prefix string) {
	files := one.TLS.CertFile != "" || one.TLS.KeyFile != ""
	switch {
	case one.TLS.Mode == smtpd.NoTLS && (files || one.TLS.SelfSigned):
		l.problem(prefix+".tls", `found "none", and a certificate; write "starttls" or "implicit", or leave the certificate out`)
	case one.TLS.Mode == smtpd.NoTLS || l.bad[prefix+".tls"]:
	case files && one.TLS.SelfSigned:
		l.problem(prefix+".self_signed", "found true, and a certificate's file; keep one")
	case one.TLS.SelfSigned:
	case files && one.TLS.KeyFile == "":
		l.problem(prefix+".cert_file", "is set, and key_file is not; name the file with the certificate's key, which may be the same one")
	case files && one.TLS.CertFile == "":
		l.problem(prefix+".key_file", "is set, and cert_file is not; name the file with the certificate")
	case !files:
		l.problem(prefix+".tls", "found %s without a certificate; set cert_file and key_file, or self_signed = true inside a network", settings.Quote(string(one.TLS.Mode)))
	default:
		l.validatePair(prefix, one.TLS.CertFile, one.TLS.KeyFile)
	}
}

// validatePair reads a certificate and its key in the same way as the daemon.
func (l *loader) validatePair(prefix, certFile, keyFile string) {
	var pem [2][]byte
	for i, file := range []struct{ path, name string }{{".cert_file", certFile}, {".key_file", keyFile}} {
		data, err := l.src.ReadFile(file.name)
		if err != nil {
			l.problem(prefix+file.path, "cannot read %s: %v", settings.Show(file.name), cause(err))
			return
		}
		pem[i] = data
	}
	pair, err := tls.X509KeyPair(pem[0], pem[1])
	if err != nil {
		l.problem(prefix+".cert_file", "%s and %s are no certificate and its key: %v", settings.Show(certFile), settings.Show(keyFile), err)
		return
	}
	l.loose(prefix+".key_file", keyFile)
	if leaf, err := x509.ParseCertificate(pair.Certificate[0]); err == nil && time.Now().After(leaf.NotAfter) {
		l.warn("%s: the certificate in %s ended on %s", prefix, certFile, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
}

func (l *loader) validateWarming(i int) {
	all := l.cfg.Warming
	one, prefix := all[i], settings.Numbered("warming", i, len(all))
	l.validateWarmingDomain(i, prefix)
	if one.Begin.IsZero() && !l.bad[prefix+".begin"] {
		l.problem(prefix+".begin", `is not set; write the first day, as in "2026-12-01"`)
	}
	if l.cfg.Queue.Mode == NoQueue {
		l.problem(prefix, "what is over a day's number waits in the queue, and queue.mode is \"none\"; change it, or leave the table out")
	}
	first, path := one.First, prefix+".first"
	if len(one.Table) > 0 {
		first, path = one.Table[0], prefix+".table"
		if l.find(prefix+".first").origin == "file" || l.find(prefix+".growth").origin == "file" {
			l.warn("%s: there is a table, so that first and growth count for nothing", prefix)
		}
	}
	if one.Until > 0 && first >= one.Until && !l.bad[path] && !l.bad[prefix+".until"] {
		l.problem(path, "the first day may send %d, and %s.until ends the warming at %d: it would be over before it begins", first, prefix, one.Until)
	}
}

func (l *loader) validateWarmingDomain(i int, prefix string) {
	one, path := l.cfg.Warming[i], prefix+".domain"
	domain := one.Domain
	if l.bad[path] {
		return
	}
	if domain == "" {
		l.problem(path, `is not set; write the domain whose mail is held back, as in "mail.example.com"`)
		return
	}
	for _, earlier := range l.cfg.Warming[:i] {
		if warm.Canonical(earlier.Domain) == warm.Canonical(domain) && earlier.Account == one.Account {
			l.problem(path, "found %s, which another table has already", settings.Show(domain))
		}
	}
	if l.cfg.Sender.Email != "" && !l.sendsFrom(one.Account, domain) {
		l.warn("%s: %s is not among %s: nothing is sent from it", prefix, domain, l.domainsNamed(one.Account))
	}
}

// sendsFrom reports whether an account sends from a domain; "" is any of them.
func (l *loader) sendsFrom(account, domain string) bool {
	own := func(d string) bool { return warm.Canonical(d) == warm.Canonical(domain) }
	of := func(name string) bool { return account == "" || account == name }
	return of(relay.DefaultAccount) && slices.ContainsFunc(l.cfg.Sender.Domains, own) ||
		slices.ContainsFunc(l.cfg.Accounts, func(a Account) bool { return of(a.Name) && slices.ContainsFunc(a.Domains, own) })
}

// domainsNamed names the setting with the domains of an account; "" is any of them.
func (l *loader) domainsNamed(account string) string {
	switch {
	case account != "" && account != relay.DefaultAccount:
		return "the domains of account " + settings.Quote(account)
	case account == "" && len(l.cfg.Accounts) > 0:
		return "sender.domains or an account's domains"
	}
	return "sender.domains"
}

// minToken is the least length of a token, so that it cannot be guessed.
const minToken = 16

func (l *loader) validateAdmin() {
	a := l.cfg.Admin
	if a.Token.IsSet() && len(a.Token.Reveal()) < minToken {
		l.problem("admin.token", "has %d letters; %d are needed so that nobody guesses it, as 'openssl rand -hex 16' makes them", len(a.Token.Reveal()), minToken)
	}
	switch {
	case a.CertFile == "" && a.KeyFile == "":
	case a.CertFile == "" || a.KeyFile == "":
		l.problem("admin.cert_file", "is set without admin.key_file, or the other way round; set both or neither")
	default:
		l.validatePair("admin", a.CertFile, a.KeyFile)
	}
	for i := range l.cfg.Operators {
		l.validateOperator(i)
	}
	if a.Address == "" || l.bad["admin.address"] || a.Token.IsSet() || l.secretRefused(l.secretAt("admin.token")) {
		return
	}
	if host, _, _ := net.SplitHostPort(a.Address); !loopbackHost(host) {
		l.problem("admin.address", "found %s, which other machines reach, and no token; write 127.0.0.1, or %s", settings.Show(a.Address), l.ways(l.secretAt("admin.token")))
	}
}

func (l *loader) validateNotify() {
	n := &l.cfg.Notify
	if len(n.Mail) > 0 && l.cfg.Queue.Mode == NoQueue {
		l.problem("notify.mail", `is set, and queue.mode is "none": mail to tell of failures needs a queue; set notify.url instead`)
	}
	if n.URL != "" && !l.bad["notify.url"] {
		l.validateHook("notify.url", n.URL, n.AllowInsecure, "notify.allow_insecure")
		l.needSecret("notify.url", "notify.secret")
	}
	if (n.Bounces > 0 || n.Complaints > 0) && n.On() && l.cfg.Webhook.Address == "" {
		for _, path := range []string{"notify.bounces", "notify.complaints"} {
			if l.find(path).origin != "default" {
				l.warn("%s: without webhook.address nothing is known of bounces and complaints", path)
			}
		}
	}
}

// validateHook refuses an address to which what is posted would travel in the clear.
func (l *loader) validateHook(path, address string, insecure bool, allow string) {
	if u, err := url.Parse(address); err == nil && u.Scheme == "http" && !insecure && !loopbackHost(u.Hostname()) {
		l.problem(path, "found an http:// address of another machine, so that what is posted could be read on the way; write https://, or set %s = true if nobody can listen there", allow)
	}
}

// needSecret has a problem at a setting that is of no use without a secret.
func (l *loader) needSecret(path, secret string) {
	s := l.find(secret).Value.(interface{ Text() string })
	if from := l.secretAt(secret); s.Text() == (Secret{}).String() && !l.secretRefused(from) {
		l.problem(path, "is set, and %s is not: whoever gets it could not tell that it is from here; %s", secret, l.ways(from))
	}
}

func (l *loader) validateOperator(i int) {
	all := l.cfg.Operators
	one, prefix := all[i], settings.Numbered("operator", i, len(all))
	if one.Name == "" && !l.bad[prefix+".name"] {
		l.problem(prefix+".name", "is not set; write the name that is logged with what the operator does")
	}
	if one.Hash == "" && !l.bad[prefix+".token_hash"] {
		l.problem(prefix+".token_hash", "is not set; make a token and its hash with 'smtp2rest token'")
	}
	if one.Name != "" && slices.ContainsFunc(all[:i], func(o Operator) bool { return o.Name == one.Name }) {
		l.problem(prefix+".name", "found %s, which another operator has already", settings.Show(one.Name))
	}
	if i := slices.IndexFunc(all[:i], func(o Operator) bool { return o.Hash == one.Hash }); one.Hash != "" && i >= 0 {
		l.problem(prefix+".token_hash", "is that of %s, too: who logs in with the token could be either; make a token for each", settings.Show(all[i].Name))
	}
}

func (l *loader) validateWebhook() {
	w := &l.cfg.Webhook
	if w.Address == "" || l.bad["webhook.address"] {
		return
	}
	if !w.Secret.IsSet() && !l.secretRefused(l.secretAt("webhook.secret")) && !l.src.NoWebhookSecret {
		l.problem("webhook.address", "is set, and webhook.secret is not: anybody could send events; %s. 'smtp2rest webhook register' gets one from the provider", l.ways(l.secretAt("webhook.secret")))
	}
	l.validateWebhookTLS(w)
	if l.cfg.Queue.Mode == NoQueue {
		l.warn("webhook.address: queue.mode is \"none\", so that what events teach is forgotten when the relay is restarted")
	}
}

func (l *loader) validateWebhookTLS(w *Webhook) {
	switch {
	case w.CertFile == "" && w.KeyFile == "":
		if host, _, err := net.SplitHostPort(w.Address); err == nil && !loopbackHost(host) {
			l.warn("webhook.address: %s can be reached by others, and without cert_file what events say of your recipients can be read on the way", w.Address)
		}
	case w.CertFile == "":
		l.problem("webhook.cert_file", "is not set, and webhook.key_file is; set both or neither")
	case w.KeyFile == "":
		l.problem("webhook.key_file", "is not set, and webhook.cert_file is; set both or neither")
	default:
		l.validatePair("webhook", w.CertFile, w.KeyFile)
	}
}
