package graph

import (
	"reflect"
	"strings"

	"github.com/backplane-dev/backplane/graph/generated"
	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/fault"
)

// payloads maps the name of each mutation, in lower case, to the type of its
// payload.
var payloads = payloadTypes(reflect.TypeFor[generated.MutationResolver]())

func payloadTypes(resolver reflect.Type) map[string]reflect.Type {
	types := make(map[string]reflect.Type, resolver.NumMethod())
	for m := range resolver.Methods() {
		types[strings.ToLower(m.Name)] = m.Type.Out(0).Elem()
	}
	return types
}

// withUserErrors moves errors that a mutation's caller can correct to the userErrors of
// its payload, so resolvers just return errors. Other errors stay errors.
func withUserErrors(mutation string, res any, err error) (any, error) {
	if err == nil {
		return res, nil
	}
	faults := fault.All(err)
	for _, f := range faults {
		if !f.Kind().Mendable() {
			return nil, err
		}
	}
	payload := reflect.New(payloads[strings.ToLower(mutation)]).Elem()
	payload.FieldByName("UserErrors").Set(reflect.ValueOf(userErrors(faults)))
	showCurrent(payload, faults[0].Current)
	return payload.Addr().Interface(), nil
}

func userErrors(faults []*fault.Error) []*model.UserError {
	shown := make([]*model.UserError, len(faults))
	for i, f := range faults {
		shown[i] = &model.UserError{Code: f.Code, Message: f.Message, Path: append([]string{}, f.Path...)}
	}
	return shown
}

// showCurrent puts the object that a conflict carries into the payload's field
// of its type.
func showCurrent(payload reflect.Value, current any) {
	if current == nil {
		return
	}
	v := reflect.ValueOf(current)
	for _, field := range payload.Fields() {
		if field.Type() == v.Type() {
			field.Set(v)
		}
	}
}
