package fault

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Meaning is what a code means: the kind of its errors, and a sentence, which is
// the description of the code in the schema.
type Meaning struct {
	Code     Code
	Kind     Kind
	Sentence string
}

// Meanings returns the meaning of every declared code, sorted by code.
func Meanings() []Meaning {
	return slices.SortedFunc(maps.Values(meanings), func(a, b Meaning) int { return strings.Compare(string(a.Code), string(b.Code)) })
}

// Declare adds codes. Domains call it, through package entity, while their packages are
// initialised. It panics on a code that is declared twice, or has no sentence.
func Declare(all ...Meaning) {
	for _, m := range all {
		if m.Code.Known() || m.Code == "" || m.Sentence == "" {
			panic(fmt.Sprintf("fault: the code %q is declared twice, or is incomplete", m.Code))
		}
		meanings[m.Code] = m
	}
}

// Known reports whether c is a declared code.
func (c Code) Known() bool {
	_, ok := meanings[c]
	return ok
}

// Kind returns the kind of each error with the code: Internal if the code is not known.
func (c Code) Kind() Kind { return meanings[c].Kind }

// meanings are those of the codes in this package; Declare adds to them.
var meanings = indexByCode([]Meaning{
	{Internal, KindInternal, "Something went wrong on the server; the request id in `extensions` finds it in the log."},
	{BadInput, KindInvalid, "A value does not have the form that it must have."},
	{Unauthenticated, KindUnauthenticated, "The caller is not signed in, or the credential is not valid."},
	{TokenExpired, KindUnauthenticated, "The access token was valid and has expired: call `refreshSession`, then repeat the request with the new token."},
	{Forbidden, KindForbidden, "The caller's roles or the scopes of its API key do not cover this."},
	{RateLimited, KindExhausted, "Too many attempts; `extensions.retryAfter` says after how many seconds to try again."},
	{Unavailable, KindUnavailable, "A dependency of the server is down; try again later."},
	{ServerBusy, KindUnavailable, "The server is at its limit of concurrent work; try again later."},
	{Timeout, KindTimeout, "The request took longer than the server allows and was stopped."},
	{Cancelled, KindTimeout, "The client disconnected before the response."},
	{BadRequest, KindInvalid, "The HTTP request is not a GraphQL request."},
	{NotFound, KindNotFound, "There is nothing at the path of the HTTP request, or no event stream with its token."},
	{GraphQLParseFailed, KindInvalid, "The document is not GraphQL."},
	{GraphQLValidationFailed, KindInvalid, "The document does not fit the schema."},
	{OperationResolutionFailure, KindInvalid, "The document does not hold the operation that was asked for, or several and no name was given."},
	{PersistedQueryNotFound, KindNotFound, "The server does not know the document of this hash; send it with the hash."},
	{PersistedQueryMismatch, KindInvalid, "The hash is not that of the document."},
	{IntrospectionDisabled, KindForbidden, "The operator has switched introspection off."},
	{BodyTooLarge, KindInvalid, "The request's body is larger than the server accepts."},
	{HeaderTooLarge, KindInvalid, "The header of the request is larger than the limit."},
	{TooManyTokens, KindInvalid, "The document has more tokens than the server accepts."},
	{TooManyFields, KindInvalid, "The document selects more fields than the server accepts."},
	{TooManyFragments, KindInvalid, "The document has more fragments than the server accepts."},
	{FragmentsTooDeep, KindInvalid, "Fragments spread one another deeper than the server accepts."},
	{TooDeep, KindInvalid, "The operation nests its selections deeper than the server accepts."},
	{TooManyAliases, KindInvalid, "The document has more aliases than the server accepts."},
	{TooManyRootFields, KindInvalid, "The operation has more fields at its root than the server accepts."},
	{TooManyDirectives, KindInvalid, "The document has more directives than the server accepts."},
	{TooManyOperations, KindInvalid, "The document holds more operations than the server accepts."},
	{TooComplex, KindInvalid, "The operation may cost more than the server accepts; ask for smaller pages or fewer levels."},
	{TooManyErrors, KindInvalid, "There were more errors than are shown."},
	{ResponseTooLarge, KindInvalid, "The response is larger than the limit."},
	{PageSizeInvalid, KindInvalid, "`first` or `last` is out of range, or both were given."},
	{CursorInvalid, KindInvalid, "The cursor does not come from this list in this order."},
	{CursorUnknown, KindInvalid, "The event log does not know the cursor: it dates from before a restore, or is none that this server gives to the caller. Read again, then subscribe after `eventCursor`."},
	{CursorExpired, KindInvalid, "The events after the cursor are no longer kept. Read again, then subscribe after `eventCursor`."},
	{VersionConflict, KindConflict, "The object is not at the version that `ifVersion` expects; the payload carries it as it is."},
	{LegacyIDInvalid, KindInvalid, "This cannot be a legacy id."},
	{LegacyIDTaken, KindConflict, "Another object of the type has this legacy id."},
	{IdempotencyKeyInvalid, KindInvalid, "An idempotency key is 1 to 200 printable ASCII characters; header and field must not differ."},
	{IdempotencyKeyReused, KindConflict, "The key was used for another call."},
	{IdempotencyInFlight, KindConflict, "The first call with this key has not ended; try again with the same key."},
	{UserNotFound, KindNotFound, "There is no such user, or it is hidden from the caller."},
	{UserNotActive, KindConflict, "The account is deactivated or deleted."},
	{PasswordInvalid, KindInvalid, "The password is too short or too long, is among the first that attackers try, or is made of the names of its account."},
	{CredentialsWrong, KindInvalid, "The login or the password is wrong."},
	{LimitReached, KindConflict, "The maximum number of these objects is reached."},
	{CurrencyUnknown, KindInvalid, "This is not an active currency of ISO 4217."},
	{AmountInvalid, KindInvalid, "The amount is no number, is negative or too large, or has more digits than its currency."},
	{BadGateway, KindUnavailable, "From the gateway: the service could not be reached, or its response could not be passed on."},
	{GatewayTimeout, KindTimeout, "From the gateway: the service did not respond in time."},
})

func indexByCode(all []Meaning) map[Code]Meaning {
	byCode := make(map[Code]Meaning, len(all))
	for _, m := range all {
		byCode[m.Code] = m
	}
	return byCode
}
