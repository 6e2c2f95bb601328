package auth

import (
	"encoding/base64"
	"errors"
	"strings"
)

// The ways in which an exchange fails before there is anything to check.
var (
	ErrMechanism = errors.New("unknown mechanism")
	ErrBase64    = errors.New("not base64")
	ErrMalformed = errors.New("not what the mechanism asks for")
	ErrCancelled = errors.New("cancelled by the client")
)

// Mechanisms are the names of those there are. LOGIN was never more than a
// draft, and is the only one that many old programs have.
func Mechanisms() []string { return []string{"PLAIN", "LOGIN"} }

// Converse runs the exchange that AUTH begins with arg: a mechanism and, it may
// be, an initial response. ask sends a challenge in base64 and returns the
// client's line; its errors come back as they are.
func Converse(arg string, ask func(challenge string) (string, error)) (Credentials, error) {
	name, initial, given := strings.Cut(arg, " ")
	next := func(challenge string) (string, error) {
		if given {
			given = false
			return decode(strings.Trim(initial, " \t"))
		}
		line, err := ask(base64.StdEncoding.EncodeToString([]byte(challenge)))
		switch {
		case err != nil:
			return "", err
		case line == "*": // RFC 4954 section 4
			return "", ErrCancelled
		}
		return decode(line)
	}
	switch strings.ToUpper(name) {
	case "PLAIN":
		return plain(next)
	case "LOGIN":
		return login(next)
	}
	return Credentials{}, ErrMechanism
}

// plain: RFC 4616.
func plain(next func(string) (string, error)) (Credentials, error) {
	message, err := next("")
	if err != nil {
		return Credentials{}, err
	}
	parts := strings.Split(message, "\x00")
	// Nobody may act for somebody else here.
	if len(parts) != 3 || parts[1] == "" || parts[0] != "" && parts[0] != parts[1] {
		return Credentials{}, ErrMalformed
	}
	return Credentials{User: parts[1], Password: parts[2]}, nil
}

func login(next func(string) (string, error)) (said Credentials, err error) {
	if said.User, err = next("Username:"); err != nil {
		return Credentials{}, err
	}
	if said.Password, err = next("Password:"); err != nil {
		return Credentials{}, err
	}
	if said.User == "" {
		return Credentials{}, ErrMalformed
	}
	return said, nil
}

func decode(s string) (string, error) {
	if s == "=" { // RFC 4954 section 4: an empty initial response
		return "", nil
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", ErrBase64 // the library's error would tell of the content
	}
	return string(data), nil
}
