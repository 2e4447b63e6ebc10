package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/ent"
	entsecurity "github.com/backplane-dev/backplane/ent/securityevent"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// SecurityEvents implements securitylog.Store.
type SecurityEvents struct{ db *DB }

var _ securitylog.Store = SecurityEvents{}

// SecurityEvents returns the store of security events.
func (db *DB) SecurityEvents() SecurityEvents { return SecurityEvents{db} }

// securityColumns are the columns of a security event but recorded_at.
var securityColumns = []string{
	"id", "type", "occurred_at", "last_at", "occurrences", "user_id", "actor", "session_id", "api_key_id", "address", "user_agent", "request_id", "detail",
}

// Append implements securitylog.Store.
func (s SecurityEvents) Append(ctx context.Context, events []security.Event) error {
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		return t.appendSecurityEvents(ctx, events)
	})
	if err != nil {
		return fmt.Errorf("append %d security events: %w", len(events), err)
	}
	return nil
}

// appendSecurityEvents inserts events that are not there yet.
func (t *tx) appendSecurityEvents(ctx context.Context, events []security.Event) error {
	now := t.db.timeIn(0)
	tuple := "(" + paramList(len(securityColumns)) + ", " + now.sql + ")"
	for some := range slices.Chunk(events, maxParams/(len(securityColumns)+len(now.args))) {
		var args []any
		for _, e := range some {
			args = append(args, e.ID, string(e.Type), toMicros(e.OccurredAt), toMicros(e.LastAt), e.Count, string(e.UserID), e.Actor,
				string(e.SessionID), string(e.APIKeyID), e.Address, e.UserAgent, e.RequestID, e.Detail)
			args = append(args, now.args...)
		}
		err := t.queue(ctx, `INSERT INTO security_events (`+strings.Join(securityColumns, ", ")+`, recorded_at) VALUES `+
			strings.TrimSuffix(strings.Repeat(tuple+", ", len(some)), ", ")+` ON CONFLICT (id) DO NOTHING`, args...)
		if err != nil {
			return fmt.Errorf("insert security events: %w", err)
		}
	}
	return nil
}

// recordSecurityEvent records a security event to be stored with the commit. Those of changes that record
// an event of the log need not be recorded, see securityTypes.
func (t *tx) recordSecurityEvent(all ...security.Event) { t.security = append(t.security, all...) }

// securityTypes are the events of the log that are security events too.
var securityTypes = map[event.Type]security.EventType{
	session.EventSessionRevoked:  security.SessionRevoked,
	session.EventAPIKeyCreated:   security.APIKeyCreated,
	session.EventAPIKeyRevoked:   security.APIKeyRevoked,
	event.UserDeleted:            security.UserDeleted,
	token.EventSigningKeyRotated: security.SigningKeyRotated,
	token.EventSigningKeyRevoked: security.SigningKeyRevoked,
}

// insertSecurityEvents stores the security events of the transaction.
func (t *tx) insertSecurityEvents(ctx context.Context) error {
	for _, e := range t.events {
		if typ, ok := securityTypes[e.Type]; ok {
			t.recordSecurityEvent(securityEventOf(ctx, typ, e))
		}
	}
	if len(t.security) == 0 {
		return nil
	}
	return t.appendSecurityEvents(ctx, t.security)
}

// securityEventOf returns the security event of an event of the log: about its user, session and key, by the caller.
func securityEventOf(ctx context.Context, typ security.EventType, e event.Event) security.Event {
	var data struct {
		Reason session.Reason `json:"reason"`
	}
	_ = json.Unmarshal(e.Data, &data) // which has a reason only if it is about a session
	s := security.New(ctx, typ, string(data.Reason), e.OccurredAt)
	switch {
	case data.Reason == session.TokenReused:
		s.Type = security.RefreshReused
	case typ == security.SigningKeyRotated || typ == security.SigningKeyRevoked:
		s.Detail = e.SubjectID
	}
	s.UserID = ""
	for _, id := range append([]string{e.SubjectID}, e.Related...) {
		switch {
		case uid.Is(uid.KindUser, id):
			s.UserID = uid.User(id)
		case uid.Is(uid.KindSession, id):
			s.SessionID = uid.Session(id)
		case uid.Is(uid.KindAPIKey, id):
			s.APIKeyID = uid.APIKey(id)
		}
	}
	s.Actor = cmp.Or(e.Actor, s.Actor)
	return s
}

// Sweep implements securitylog.Store. It passes over rows that others hold, and removes none while the
// clock cannot be relied on.
func (s SecurityEvents) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if s.db.clock.CheckAge() != nil {
		return 0, nil //nolint:nilerr // the clock reports it
	}
	var removed int64
	before := s.db.timeIn(-age)
	err := s.db.inTx(ctx, claim.None, func(t *tx) (err error) {
		t.dirty = true
		removed, err = t.exec(ctx, `DELETE FROM security_events WHERE id IN (SELECT id FROM security_events WHERE recorded_at < `+before.sql+`
			ORDER BY recorded_at, id LIMIT ?`+t.lockClause("FOR UPDATE SKIP LOCKED")+`)`, append(slices.Clone(before.args), limit)...)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("remove expired security events: %w", err)
	}
	return int(removed), nil
}

var securityEventsByTime = keyset[*security.Event]{
	name: "RECORDED_AT_DESC", column: entsecurity.FieldRecordedAt, desc: true,
	key: func(e *security.Event) string { return timeKey(e.RecordedAt) },
	id:  func(e *security.Event) string { return e.ID }, parse: parseTime,
}

// List implements securitylog.Store.
func (s SecurityEvents) List(ctx context.Context, f securitylog.Filter, args page.Args) (page.Page[*security.Event], error) {
	return listPage(ctx, s.db, s.queryMatching, f, securityEventsByTime, args, toSecurityEvent)
}

func (s SecurityEvents) queryMatching(f securitylog.Filter) (*ent.SecurityEventQuery, error) {
	q := s.db.lists.SecurityEvent.Query()
	if f.Type != "" {
		q.Where(entsecurity.TypeEQ(f.Type))
	}
	if f.UserID != nil {
		q.Where(equalsText(entsecurity.FieldUserID, string(*f.UserID)))
	}
	if f.Address != nil {
		q.Where(equalsText(entsecurity.FieldAddress, *f.Address))
	}
	if f.Since != nil {
		q.Where(entsecurity.RecordedAtGTE(toMicros(*f.Since)))
	}
	if f.Until != nil {
		q.Where(entsecurity.RecordedAtLT(toMicros(*f.Until)))
	}
	return q, nil
}

// NewestOf implements securitylog.Store. Each type is read in the order of the index (user, type, time), so that
// other events of the user cost nothing.
func (s SecurityEvents) NewestOf(ctx context.Context, user uid.User, types []security.EventType, limit int) ([]*security.Event, error) {
	var newest []*security.Event
	for _, t := range types {
		rows, err := s.db.client.SecurityEvent.Query().Where(entsecurity.UserID(user), entsecurity.TypeEQ(t)).
			Order(ent.Desc(entsecurity.FieldRecordedAt, entsecurity.FieldID)).Limit(limit).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read security events of %s: %w", user, s.db.translateError(ctx, err))
		}
		newest = append(newest, mapSlice(rows, toSecurityEvent)...)
	}
	slices.SortFunc(newest, func(a, b *security.Event) int {
		return cmp.Or(b.RecordedAt.Compare(a.RecordedAt), strings.Compare(b.ID, a.ID))
	})
	return newest[:min(len(newest), limit)], nil
}

// ReadAfter implements securitylog.Store.
func (s SecurityEvents) ReadAfter(ctx context.Context, after securitylog.Position, limit int) ([]*security.Event, error) {
	rows, err := s.db.client.SecurityEvent.Query().Where(func(q *entsql.Selector) {
		q.Where(entsql.CompositeGT([]string{q.C(entsecurity.FieldRecordedAt), q.C(entsecurity.FieldID)}, toMicros(after.RecordedAt), after.ID))
	}).Order(ent.Asc(entsecurity.FieldRecordedAt, entsecurity.FieldID)).Limit(limit).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read security events: %w", s.db.translateError(ctx, err))
	}
	return mapSlice(rows, toSecurityEvent), nil
}

func toSecurityEvent(r *ent.SecurityEvent) *security.Event {
	return &security.Event{
		ID: r.ID, Type: r.Type, OccurredAt: toMicros(r.OccurredAt), LastAt: toMicros(r.LastAt), RecordedAt: toMicros(r.RecordedAt), Count: r.Occurrences,
		UserID: r.UserID, Actor: r.Actor, SessionID: r.SessionID, APIKeyID: r.APIKeyID, Address: r.Address, UserAgent: r.UserAgent,
		RequestID: r.RequestID, Detail: r.Detail,
	}
}
