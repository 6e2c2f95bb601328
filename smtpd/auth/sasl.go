package auth

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/emersion/go-sasl"
)

// The errors of Converse, besides those of ask.
var (
	ErrMechanism = errors.New("unknown mechanism")
	ErrBase64    = errors.New("not base64")
	ErrMalformed = errors.New("not what the mechanism asks for")
	ErrCancelled = errors.New("cancelled by the client")
)

// Mechanisms returns the names of the mechanisms. LOGIN was never more than a draft, and
// is the only one that many old programs have.
func Mechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// newServer returns the server's side of a mechanism, nil for an unknown one. It only
// collects the credentials; Check checks them, which may take some time.
func newServer(mechanism string, said *Credentials) sasl.Server {
	switch strings.ToUpper(mechanism) {
	case sasl.Plain: // RFC 4616
		return sasl.NewPlainServer(func(identity, user, password string) error {
			if user == "" || identity != "" && identity != user { // nobody may act for somebody else here
				return ErrMalformed
			}
			*said = Credentials{User: user, Password: password}
			return nil
		})
	case sasl.Login:
		return &loginServer{said: said}
	}
	return nil
}

// A loginServer is the server's side of LOGIN, which go-sasl lacks.
type loginServer struct {
	said    *Credentials
	hasUser bool
}

// Next implements sasl.Server.
func (s *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil: // the client gave no initial response
		return []byte("Username:"), false, nil
	case !s.hasUser:
		s.said.User, s.hasUser = string(response), true
		return []byte("Password:"), false, nil
	case s.said.User == "":
		return nil, true, ErrMalformed
	}
	s.said.Password = string(response)
	return nil, true, nil
}

// Converse runs the exchange that AUTH begins with arg: a mechanism and, optionally, an
// initial response. ask sends a challenge in base64 and returns the client's line.
// Converse returns errors of ask as they are.
func Converse(arg string, ask func(challenge string) (string, error)) (Credentials, error) {
	var said Credentials
	mechanism, initial, given := strings.Cut(arg, " ")
	server := newServer(mechanism, &said)
	if server == nil {
		return Credentials{}, ErrMechanism
	}
	var response []byte // nil before the first
	var err error
	if given {
		response, err = decode(strings.Trim(initial, " \t"))
	}
	for err == nil {
		challenge, done, failed := server.Next(response)
		switch {
		case failed != nil:
			return Credentials{}, ErrMalformed
		case done:
			return said, nil
		}
		var line string
		if line, err = ask(base64.StdEncoding.EncodeToString(challenge)); err != nil {
			break
		}
		if line == "*" { // RFC 4954 section 4
			return Credentials{}, ErrCancelled
		}
		response, err = decode(line)
	}
	return Credentials{}, err
}

// decode never returns nil: an empty response is one.
func decode(s string) ([]byte, error) {
	if s == "=" { // RFC 4954 section 4: an empty initial response
		return []byte{}, nil
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, ErrBase64 // the library's error would show some of the content
	}
	return data, nil
}
