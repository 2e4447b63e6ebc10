// Package password hashes passwords with argon2id and checks them.
//
// Each hash takes many milliseconds of a core and megabytes of memory. A Hasher
// therefore bounds how many run at a time (a semaphore) and how many callers wait
// (a bounded queue); past that it refuses with SERVER_BUSY. Checking a password
// takes equally long whether or not the account has one, so that timing does not
// reveal which accounts exist.
//
// Throttling of guesses is left to package throttle, storage to the caller.
package password

import (
	"crypto/rand"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Lengths of passwords.
const (
	minLength = 10   // characters
	maxLength = 1024 // bytes; what a caller sends must not set the cost of a hash
)

// Normalize returns the password as it is hashed: composed characters and spaces
// in one spelling (RFC 8265, OpaqueString), so that one password typed on two
// keyboards is one. It gives PASSWORD_INVALID, at password, for fewer than 10
// characters, more than 1024 bytes and characters that are not text.
func Normalize(s string) (string, error) {
	if len(s) > maxLength {
		return "", errInvalid("it must be at most %d bytes long", maxLength)
	}
	normalized, err := precis.OpaqueString.String(s)
	switch {
	case utf8.RuneCountInString(s) < minLength || err == nil && utf8.RuneCountInString(normalized) < minLength:
		return "", errInvalid("it must be at least %d characters long", minLength)
	case err != nil || !utf8.ValidString(s):
		return "", errInvalid("it holds characters that are not for text")
	}
	return normalized, nil
}

func errInvalid(format string, args ...any) error {
	return fault.New(fault.PasswordInvalid, "This password cannot be used: "+format+".", args...).At("password")
}

// Generate returns a random password of 100 bits that can be read out loud.
func Generate() string {
	t := strings.ToLower(rand.Text()) // 5 bits a character
	return t[:5] + "-" + t[5:10] + "-" + t[10:15] + "-" + t[15:20]
}
