package auth

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const (
	// cost takes about a twentieth of a second; bcrypt doubles it with each step.
	cost    = bcrypt.DefaultCost
	maxCost = 14 // about a second: above it one login could hold up all others
)

// Hash makes a hash of a password, of at most 72 octets, for a User.
func Hash(password string) (string, error) {
	switch {
	case password == "":
		return "", errors.New("the password is empty")
	case len(password) > 72: // bcrypt looks at no more
		return "", errors.New("the password is longer than 72 octets")
	case strings.ContainsAny(password, "\x00\r\n"): // AUTH PLAIN cannot carry NUL
		return "", errors.New("the password has a control character in it")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	return string(hash), err
}

// CheckHash returns the cost of a hash, or what is wrong with it. The error
// does not show it: it may be a password.
func CheckHash(hash string) (int, error) {
	c, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil || len(hash) != 60 || !strings.HasPrefix(hash, "$2"):
		return 0, errors.New("this is not a bcrypt hash, which begins with $2; 'smtp2rest hash-password' makes one")
	case c > maxCost:
		return 0, fmt.Errorf("the hash has a cost of %d; at most %d can be checked in time", c, maxCost)
	}
	return c, nil
}

func matches(hash, password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
}
