package jsoncodec

import "strings"

// BearerToken returns the token in the value of an Authorization header; ok is false for another
// scheme.
func BearerToken(value string) (token string, ok bool) {
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}
