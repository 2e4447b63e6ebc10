package jsoncodec

import "strings"

// Bearer returns the token of an Authorization header's value; ok is false for
// another scheme.
func Bearer(value string) (token string, ok bool) {
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}
