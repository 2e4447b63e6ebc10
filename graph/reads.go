package graph

import (
	"context"

	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/user"
)

// maxNodes bounds the ids of Query.nodes.
const maxNodes = page.MaxSize

// nullIfNotFound returns null for an object that is absent or hidden.
func nullIfNotFound[T any](v *T, err error) (*T, error) {
	if err != nil && fault.From(err).Kind() == fault.KindNotFound {
		return nil, nil
	}
	return v, err
}

// loadNodes returns the objects with the ids, in their order.
func loadNodes(ctx context.Context, ids []string) ([]model.Node, error) {
	if len(ids) > maxNodes {
		return nil, fault.New(fault.PageSizeInvalid, "Ask for at most %d nodes at a time.", maxNodes).At("ids")
	}
	return loader.LoadNodes(ctx, ids)
}

// stockQuantity returns how many units are in stock.
func stockQuantity(s *order.Stock, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return s.Quantity, nil
}

// currentViewer returns the viewer for the caller, nil for an anonymous caller.
func currentViewer(ctx context.Context) *model.Viewer {
	p := auth.From(ctx)
	if p == nil || p.UserID == "" {
		return nil
	}
	return &model.Viewer{UserID: p.UserID}
}

// currentUser returns the account of the caller.
func (r *Resolver) currentUser(ctx context.Context) (*user.User, error) {
	return r.domains.Users.Self(ctx, auth.From(ctx).UserID)
}

// listEvents returns a page of the event log.
func (r *Resolver) listEvents(ctx context.Context, f event.Filter, args page.Args) (*model.EventConnection, error) {
	p, err := r.domains.Log.List(ctx, f, args)
	return newConnection(cursor.EncodePage(ctx, p), err, func(ctx context.Context) (int, error) { return r.domains.Log.Count(ctx, f) })
}

// cursorText returns the text of a cursor as the log reads it, nil for none.
func cursorText(c *event.Cursor) *string {
	if c == nil {
		return nil
	}
	text := c.String()
	return &text
}

// listInstances returns a page of a service's instances, null if the caller may not
// see them.
func listInstances(ctx context.Context, v *registry.View, l loader.InstanceList) (*model.ServiceInstanceConnection, error) {
	if !v.Complete() {
		return nil, nil
	}
	return loader.ServiceInstances.Load(ctx, v, l)
}

// listDeadLetters returns a page of the dead letter queues.
func (r *Resolver) listDeadLetters(ctx context.Context, f consumer.DeadLetterFilter, args page.Args) (*model.DeadLetterConnection, error) {
	p, err := r.domains.ConsumerAdmin.DeadLetters(ctx, f, args)
	return newConnection(p, err, func(ctx context.Context) (int, error) { return r.domains.ConsumerAdmin.CountDeadLetters(ctx, f) })
}

// newProfile returns the profile of a new account, with what is wrong with its password, if it has one.
func newProfile(username string, email *string, name string, password *string) user.Profile {
	p := user.Profile{Username: username, Email: email, Name: name}
	if password != nil {
		p.Invalid = session.CheckPassword(*password, p.Names()...)
	}
	return p
}

// passwordHasher returns a function that hashes the password when the hash is needed;
// nil without a password.
func (r *Resolver) passwordHasher(password *string) user.Hasher {
	if password == nil {
		return nil
	}
	return func(ctx context.Context, names []string) (user.PasswordHash, error) {
		hash, err := r.domains.Sessions.HashPassword(ctx, *password, names...)
		return user.PasswordHash(hash), err
	}
}
