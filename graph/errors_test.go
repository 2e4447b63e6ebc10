package graph

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/user"
)

func TestWithUserErrors_shows_errors_that_the_caller_can_correct(t *testing.T) {
	t.Parallel()
	first := fault.New(fault.BadInput, "One.").At("name")
	second := fault.New(user.CodeUsernameTaken, "Two.")
	res, err := withUserErrors("updateUser", nil, errors.Join(first, second))
	if err != nil {
		t.Fatal(err)
	}
	want := []*model.UserError{
		{Code: fault.BadInput, Message: "One.", Path: []string{"name"}},
		{Code: user.CodeUsernameTaken, Message: "Two.", Path: []string{}},
	}
	if diff := cmp.Diff(want, res.(*model.UpdateUserPayload).UserErrors); diff != "" {
		t.Errorf("userErrors (-want +got):\n%s", diff)
	}
}

func TestWithUserErrors_leaves_other_errors(t *testing.T) {
	t.Parallel()
	mendable := fault.New(fault.BadInput, "One.")
	for _, m := range fault.Meanings() {
		if m.Kind.Mendable() {
			continue
		}
		err := errors.Join(mendable, fault.New(m.Code, "No."))
		if res, got := withUserErrors("updateUser", (*model.UpdateUserPayload)(nil), err); got == nil || res != nil {
			t.Errorf("%s gave the payload %v and error %v, want the error", m.Code, res, got)
		}
	}
}

func TestWithUserErrors_shows_the_current_object_on_a_conflict(t *testing.T) {
	t.Parallel()
	conflict := fault.New(fault.VersionConflict, "Changed.")
	conflict.Current = &user.User{Version: 7}
	res, err := withUserErrors("updateUser", nil, conflict)
	if err != nil || res.(*model.UpdateUserPayload).User == nil || res.(*model.UpdateUserPayload).User.Version != 7 {
		t.Errorf("the payload is %+v, %v; want the user at version 7", res, err)
	}
}

func TestPayloads_are_known_for_every_mutation(t *testing.T) {
	t.Parallel()
	if len(payloads) < 15 {
		t.Fatalf("only %d payloads are known", len(payloads))
	}
	for name, typ := range payloads {
		if f, ok := typ.FieldByName("UserErrors"); !ok || f.Type.String() != "[]*model.UserError" {
			t.Errorf("the payload of %s has no UserErrors", name)
		}
	}
}
