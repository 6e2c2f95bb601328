package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/spool"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// The functions below check one text each. Their errors say what was found and what
// to write instead.

// checkOf returns the check that a tag names.
func checkOf(name string) func(string) error {
	switch name {
	case "file":
		return settings.CheckText
	case "secret file":
		return checkSecretPath
	case "hostname":
		return checkHostname
	case "url":
		return checkURL
	case "forward name":
		return checkForwardName
	case "hook url":
		return orEmpty(checkHookURL)
	case "path":
		return checkPath
	case "email":
		return checkEmail
	case "postmaster":
		return checkPostmaster
	case "domain":
		return orEmpty(checkDomain)
	case "field":
		return checkField
	case "needed field":
		return checkNeededField
	case "dir":
		return checkDir
	case "spool":
		return checkSpool
	case "socket":
		return checkSocket
	case "address":
		return orEmpty(checkAddress)
	case "admin address":
		return checkAdminAddress
	case "listen":
		return checkListen
	case "account name":
		return checkAccountName
	case "optional account":
		return orEmpty(func(s string) error {
			if s == relay.DefaultAccount {
				return nil
			}
			return checkAccountName(s)
		})
	case "account url":
		return orEmpty(checkURL)
	case "account path":
		return orEmpty(checkPath)
	case "user name":
		return checkUserName
	}
	return func(string) error { return fmt.Errorf("there is no check named %s", settings.Show(name)) }
}

// orEmpty also accepts an empty text, which means that the setting is not set.
func orEmpty(check func(string) error) func(string) error {
	return func(s string) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

func checkPostmaster(s string) error {
	if s == Nobody {
		return nil
	}
	return checkEmail(s)
}

// checkDir requires an absolute path. A relative one would name another queue when
// the program runs in another directory.
func checkDir(s string) error {
	if s != "" && (!filepath.IsAbs(s) || settings.CheckText(s) != nil) {
		return fmt.Errorf(`found %s; write an absolute path, as in "/var/lib/smtp2rest"`, settings.Show(s))
	}
	return nil
}

func checkSpool(s string) error {
	if s != spool.Off && (!filepath.IsAbs(s) || settings.CheckText(s) != nil) {
		return fmt.Errorf(`found %s; write an absolute path, as in %s, or "none"`, settings.Show(s), settings.Quote(spool.DefaultDir))
	}
	return nil
}

// checkURL does not show a URL that may contain a password.
func checkURL(s string) error {
	const want = `write the address of the API, as in "https://api.example.com/v1"`
	u, err := url.Parse(s)
	if err != nil || settings.CheckText(s) != nil || !utf8.ValidString(s) {
		return errors.New("found what is not a URL; " + want)
	}
	switch {
	case u.User != nil:
		return errors.New("found a URL with a user name in it; the API takes a key, and secrets are not kept here")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("found a URL with a ? or # in it; " + want)
	}
	if port := u.Port(); port != "" && !validPort(port) {
		return fmt.Errorf("found port %s; allowed is from 1 to 65535", settings.Show(port))
	}
	return nil
}

// checkStoreURL does not show what it found, because it may have a password.
func checkStoreURL(s string) error {
	if scheme, rest, _ := strings.Cut(s, "://"); rest == "" || scheme != "postgres" && scheme != "postgresql" || settings.CheckText(s) != nil {
		return errors.New(`found something that is not the URL of a database; write one as in "postgres://relay@db.example.com/mail"`)
	}
	return nil
}

// hasPassword reports whether a URL may have a password: before the host, or among what
// follows the database.
func hasPassword(s string) bool {
	_, rest, _ := strings.Cut(s, "://")
	at := strings.LastIndexByte(rest, '@')
	return at >= 0 && strings.Contains(rest[:at], ":") || strings.Contains(strings.ToLower(rest), "password=")
}

// checkHookURL accepts an address of the operator's own. Its path and query may be a
// secret and are not shown.
func checkHookURL(s string) error {
	const want = `write an address, as in "https://ops.example.com/smtp2rest"`
	u, err := url.Parse(s)
	if err != nil || settings.CheckText(s) != nil || !utf8.ValidString(s) {
		return errors.New("found what is not a URL; " + want)
	}
	switch {
	case u.User != nil:
		return errors.New("found a URL with a user name in it; what is posted is signed instead")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return errors.New("found a URL that begins with neither https:// nor http:// and a host; " + want)
	case u.Fragment != "":
		return errors.New("found a URL with a # in it; " + want)
	}
	if port := u.Port(); port != "" && !validPort(port) {
		return fmt.Errorf("found port %s; allowed is from 1 to 65535", settings.Show(port))
	}
	return nil
}

func checkPath(s string) error {
	u, err := url.Parse(s)
	if err != nil || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(s, "?# ") {
		return fmt.Errorf(`found %s; write a path that begins with a slash, as in "/v1/send"`, settings.Show(s))
	}
	return nil
}

// checkEmail accepts what the API accepts as a sender: an ASCII address without a
// name. An empty one is not set; charts and templates write that.
func checkEmail(s string) error {
	if s == "" {
		return nil
	}
	const want = `write an address, as in "hello@mail.example.com"`
	if strings.ContainsAny(s, "<>") {
		return fmt.Errorf("found %s; write the address alone: the name has a setting of its own, sender.name", settings.Show(s))
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 || at == len(s)-1 {
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	}
	outside := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()[]:;@\,"`, r) }
	if strings.IndexFunc(s[:at], outside) >= 0 || strings.Contains("."+s[:at]+".", "..") {
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	}
	return checkDomain(s[at+1:])
}

func domainOf(email string) string {
	return strings.ToLower(email[strings.LastIndexByte(email, '@')+1:])
}

// checkDomain accepts a domain name in ASCII.
func checkDomain(s string) error {
	const want = `write a domain name, as in "mail.example.com"`
	if strings.HasPrefix(s, "@") {
		return fmt.Errorf("found %s; write the domain without the @", settings.Show(s))
	}
	if strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
		if form, sure := policy.Domain(s); sure {
			return fmt.Errorf("found %s; write the domain in its ASCII form, %s: it stands for both", settings.Show(s), settings.Quote(form))
		}
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	}
	if !validDomain(s) {
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	}
	return nil
}

func validDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !letterOrDigit(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

func letterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// checkHostname accepts the names that RFC 5321 section 4.1.1.1 allows a server: a
// domain name, or its address in brackets. An empty one is not set.
func checkHostname(s string) error {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		six, is6 := strings.CutPrefix(inner, "IPv6:")
		if a, err := netip.ParseAddr(six); ok && err == nil && a.Zone() == "" && a.Is6() == is6 {
			return nil
		}
	} else if s == "" || validDomain(s) {
		return nil
	}
	return fmt.Errorf(`found %s; write a name, as in "relay.example.com", or an address as in "[192.0.2.1]"`, settings.Show(s))
}

// safeHostname makes a valid name of the machine's name.
func safeHostname(hostname func() (string, error)) string {
	name, err := hostname()
	if err != nil {
		return "localhost"
	}
	name = strings.Map(func(r rune) rune {
		if r <= unicode.MaxASCII && (letterOrDigit(byte(r)) || r == '.' || r == '-') {
			return unicode.ToLower(r)
		}
		return '-'
	}, name)
	name = strings.Trim(name, ".-")
	if !validDomain(name) {
		return "localhost"
	}
	return name
}

// checkAddress accepts host:port. The host is an address, a name or empty.
func checkAddress(s string) error {
	const want = `write address and port, as in "127.0.0.1:2525" or ":2525"`
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	}
	if port != "0" && !validPort(port) {
		return fmt.Errorf("found port %s; allowed is from 1 to 65535, or 0 for any free one", settings.Show(port))
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !validDomain(host) {
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	}
	return nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '+'
}

// checkField accepts the name of a JSON field, or an empty text.
func checkField(s string) error {
	for _, c := range []byte(s) {
		if !letterOrDigit(c) && c != '_' && c != '-' {
			return fmt.Errorf("found %s; a field's name has letters, digits, - and _ only", settings.Show(s))
		}
	}
	return nil
}

func checkNeededField(s string) error {
	if s == "" {
		return errors.New(`found ""; this field cannot be left out`)
	}
	return checkField(s)
}

// checkSecretPath accepts the path of a file that contains a secret. It requires a
// slash and never shows what it found, because people write the secret itself where
// its file belongs.
func checkSecretPath(s string) error {
	if s == "" {
		return nil
	}
	for _, start := range []string{"/", "./", "../"} {
		if strings.HasPrefix(s, start) && settings.CheckText(s) == nil {
			return nil
		}
	}
	return errors.New(`found something that is not the path of a file; write one that begins with / or ./, as in "/etc/smtp2rest/api-key", and never the secret itself`)
}

func checkSocket(s string) error {
	// sun_path of unix(7) has 108 octets, with a NUL at the end.
	if s != "" && (!filepath.IsAbs(s) || len(s) > 107 || settings.CheckText(s) != nil) {
		return fmt.Errorf(`found %s; write a path of at most 107 bytes that begins with /, as in "/run/smtp2rest/admin.sock"`, settings.Show(s))
	}
	return nil
}

func checkAdminAddress(s string) error {
	if s == "" {
		return nil
	}
	if err := checkAddress(s); err != nil {
		return fmt.Errorf(`%w; for this machine alone, "127.0.0.1:9090"`, err)
	}
	return nil
}

// checkListen accepts every kind of address that a listener can have.
func checkListen(s string) error {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		// sun_path of unix(7) has 108 octets, with a NUL at the end.
		if !strings.HasPrefix(path, "/") || len(path) > 107 || settings.CheckText(path) != nil {
			return fmt.Errorf(`found %s; write a path of at most 107 bytes that begins with /, as in "unix:/run/smtp2rest/smtp"`, settings.Show(s))
		}
		return nil
	}
	if name, ok := strings.CutPrefix(s, "systemd:"); ok {
		if name == "" || strings.Contains(name, ":") || settings.CheckText(name) != nil {
			return fmt.Errorf(`found %s; write the FileDescriptorName of a .socket unit, as in "systemd:smtp"`, settings.Show(s))
		}
		return nil
	}
	return checkAddress(s)
}

// checkUserName accepts names that a line of users_file can contain.
func checkUserName(s string) error {
	if strings.Contains(s, ":") || strings.TrimSpace(s) != s || strings.HasPrefix(s, "#") {
		return fmt.Errorf("found %s; a user's name has no colon in it, no space around it and no # before it", settings.Show(s))
	}
	return settings.CheckText(s)
}

// maxHashCost is a cost that can be checked in about a second. The time doubles with
// each step, and one login must not delay all others.
const maxHashCost = 14

var bcryptHash = regexp.MustCompile(`^\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

// checkHash never shows what it found, because it may be a password.
func checkHash(s string) error {
	parts := bcryptHash.FindStringSubmatch(s)
	if parts == nil {
		return errors.New("found something that is no bcrypt hash, which begins with $2; make one with 'smtp2rest hash-password', and keep no password here")
	}
	if n, err := strconv.Atoi(parts[1]); err != nil || n < 4 || n > maxHashCost {
		return fmt.Errorf("found a hash with a cost of %s; allowed is from 4 to %d", parts[1], maxHashCost)
	}
	return nil
}

// checkTokenHash never shows what it found, because it may be a token.
func checkTokenHash(s string) error {
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(s) {
		return errors.New("found something that is no hash of a token, which is sha256: and 64 hexadecimal digits; make one with 'smtp2rest token', and keep no token here")
	}
	return nil
}
