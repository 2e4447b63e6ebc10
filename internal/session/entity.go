package session

import (
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/entity"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// The types of events.
const (
	EventSessionRevoked event.Type = "session.revoked"
	EventAPIKeyCreated  event.Type = "api_key.created"
	EventAPIKeyRevoked  event.Type = "api_key.revoked"
	EventAPIKeyExpiring event.Type = "api_key.expiring"
)

// The codes of errors.
const (
	CodeRefreshTokenInvalid fault.Code = "REFRESH_TOKEN_INVALID"
	CodeSessionNotFound     fault.Code = "SESSION_NOT_FOUND"
	CodeAPIKeyNotFound      fault.Code = "API_KEY_NOT_FOUND"
	CodeScopeInvalid        fault.Code = "SCOPE_INVALID"
	CodeExpiryInvalid       fault.Code = "EXPIRY_INVALID"
)

// SessionEntity is the declaration of sessions.
var SessionEntity = entity.Declare(entity.Declaration{
	Name: "session", Kind: uid.KindSession,
	Events: []event.Declaration{
		{Type: EventSessionRevoked, Readers: event.ReadersOwner, Scope: auth.UsersRead, Data: snapshot{}},
	},
	Codes: []fault.Meaning{
		{Code: CodeRefreshTokenInvalid, Kind: fault.KindInvalid, Sentence: "The refresh token is invalid or expired; sign in again."},
		{Code: CodeSessionNotFound, Kind: fault.KindNotFound, Sentence: "There is no such session, or it is hidden from the caller."},
	},
})

// APIKeyEntity is the declaration of API keys.
var APIKeyEntity = entity.Declare(entity.Declaration{
	Name: "api_key", Kind: uid.KindAPIKey,
	Events: []event.Declaration{
		{Type: EventAPIKeyCreated, Readers: event.ReadersOwner, Scope: auth.UsersRead, Data: keySnapshot{}},
		{Type: EventAPIKeyRevoked, Readers: event.ReadersOwner, Scope: auth.UsersRead, Data: keySnapshot{}},
		{Type: EventAPIKeyExpiring, Readers: event.ReadersOwner, Scope: auth.UsersRead, Data: keySnapshot{}},
	},
	Codes: []fault.Meaning{
		{Code: CodeAPIKeyNotFound, Kind: fault.KindNotFound, Sentence: "There is no such API key, or it is hidden from the caller."},
		{Code: CodeScopeInvalid, Kind: fault.KindInvalid, Sentence: "There is no such scope, or the caller may not grant it."},
		{Code: CodeExpiryInvalid, Kind: fault.KindInvalid, Sentence: "The expiry is in the past or too far away."},
	},
})
