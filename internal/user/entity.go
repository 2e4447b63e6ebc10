package user

import (
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/entity"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// The types of events.
const (
	EventUserCreated event.Type = "user.created"
)

// The codes of errors.
const (
	CodeUsernameInvalid fault.Code = "USERNAME_INVALID"
	CodeUsernameTaken   fault.Code = "USERNAME_TAKEN"
	CodeEmailInvalid    fault.Code = "EMAIL_INVALID"
	CodeEmailTaken      fault.Code = "EMAIL_TAKEN"
	CodeLastAdmin       fault.Code = "LAST_ADMIN"
)

// Entity is the declaration of accounts.
var Entity = entity.Declare(entity.Declaration{
	Name: "user", Kind: uid.KindUser,
	Events: []event.Declaration{
		{Type: EventUserCreated, Readers: event.ReadersStaff, Scope: auth.UsersRead, Data: snapshot{}},
		{Type: event.UserUpdated, Readers: event.ReadersStaff, Scope: auth.UsersRead, Data: snapshot{}},
		{Type: event.UserDeleted, Readers: event.ReadersStaff, Scope: auth.UsersRead, Data: snapshot{}},
	},
	Codes: []fault.Meaning{
		{Code: CodeUsernameInvalid, Kind: fault.KindInvalid, Sentence: "This cannot be a user name."},
		{Code: CodeUsernameTaken, Kind: fault.KindConflict, Sentence: "Another account has this user name."},
		{Code: CodeEmailInvalid, Kind: fault.KindInvalid, Sentence: "This is not an email address."},
		{Code: CodeEmailTaken, Kind: fault.KindConflict, Sentence: "Another account has this email address."},
		{Code: CodeLastAdmin, Kind: fault.KindConflict, Sentence: "There must be one active ADMIN left."},
	},
	Unique: map[string]*fault.Error{
		"users.username_key": UsernameTaken(),
		"users.email_key":    fault.New(CodeEmailTaken, "This email address belongs to another account.").At("email"),
		"users.legacy_id":    validate.LegacyIDTaken(),
	},
})
