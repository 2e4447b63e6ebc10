package token

import (
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/entity"
	"github.com/backplane-dev/backplane/internal/event"
)

// The types of events.
const (
	EventSigningKeyRotated event.Type = "signing_key.rotated"
	EventSigningKeyRevoked event.Type = "signing_key.revoked"
)

// SigningKeyEntity is the declaration of the keys that sign access tokens.
var SigningKeyEntity = entity.Declare(entity.Declaration{
	Name: "signing_key",
	Events: []event.Declaration{
		{Type: EventSigningKeyRotated, Readers: event.ReadersOwner, Scope: auth.UsersRead, Data: rotationData{}},
		{Type: EventSigningKeyRevoked, Readers: event.ReadersOwner, Scope: auth.UsersRead, Data: revocationData{}},
	},
})
