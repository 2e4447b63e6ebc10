package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Instance is one running copy of a service. Its lease, which renewals extend,
// is kept apart: renewing changes neither version nor UpdatedAt.
type Instance struct {
	ID           uid.Instance
	ServiceID    uid.Service
	InstanceID   string // chosen by its owner, unique within the service
	URL          string
	Weight       int // its share of the calls, 1 to MaxWeight
	Metadata     map[string]string
	Incarnation  int64 // which start of it this is
	TTL          time.Duration
	Status       Status
	StatusReason string // empty if there is nothing to say
	StatusSince  time.Time
	Version      int // raised by each change but renewals
	CreatedAt    time.Time
	UpdatedAt    time.Time

	Mode         Status     // DRAINING or MAINTENANCE if a caller set it, else PASSING
	ModeReason   string     // why
	LateSince    *time.Time // since when its lease is over; nil while it holds
	CheckFailure string     // result of its last checks; empty if they passed

	Alive   bool // the call proves that it lives: the store resets its lease
	Removed bool // the store deletes it

	events event.Recorder
}

// Lease is how long an instance counts as alive, and its last renewal.
type Lease struct {
	ExpiresAt time.Time
	SeenAt    time.Time // when the last renewal came
	Inflight  int       // calls that the instance itself said it was working on
	Check     *CheckReport
}

// InstanceInput describes a running copy of a service.
type InstanceInput struct {
	InstanceID  string
	URL         string
	Weight      int // default 1
	Metadata    map[string]string
	Incarnation int64         // default: the next one
	TTL         time.Duration // of its lease; default 30 s
}

// normalize checks the input and fills in what it leaves open, but the incarnation.
func (in InstanceInput) normalize() (InstanceInput, error) {
	in.Weight, in.TTL = cmp.Or(in.Weight, 1), cmp.Or(in.TTL, defaultTTL)
	var errs []error
	if !isToken(in.InstanceID, maxInstanceID) {
		errs = append(errs, errInstance("instanceId", "The id of an instance is 1 to %d printable ASCII characters without spaces.", maxInstanceID))
	}
	url, err := normalizeURL(in.URL)
	errs = append(errs, err)
	if in.Weight < 1 || in.Weight > MaxWeight {
		errs = append(errs, errInstance("weight", "The weight of an instance is from 1 to %d.", MaxWeight))
	}
	if in.Incarnation < 0 || in.Incarnation > MaxIncarnation {
		errs = append(errs, errInstance("incarnation", "An incarnation is a whole number from 1 to 2^53-1."))
	}
	if in.TTL < MinTTL || in.TTL > MaxTTL {
		errs = append(errs, errInstance("ttl", "The time to live of a lease is from %v to %v.", MinTTL, MaxTTL))
	}
	in.URL, in.Metadata = url, orEmptyMap(in.Metadata)
	return in, errors.Join(append(errs, validateMetadata(in.Metadata))...)
}

// NewInstance returns a new instance of the service and records
// instance.registered. The first incarnation, if none is given, follows the
// clock: so it lies above those of an instance that was removed before.
func NewInstance(service uid.Service, in InstanceInput, at time.Time) (*Instance, error) {
	in, err := in.normalize()
	if err != nil {
		return nil, err
	}
	i := &Instance{ID: uid.NewInstance(at), ServiceID: service, InstanceID: in.InstanceID, CreatedAt: at, Mode: Passing}
	i.beginIncarnation(in, cmp.Or(in.Incarnation, at.UnixMilli()), at)
	return i, nil
}

// Register is for an instance that is there already. An incarnation above its own, or
// none, is another start of it: drained or critical before, it begins anew; only
// maintenance lasts. The same incarnation again changes what it says of itself.
// A lower one is STALE_INCARNATION.
func (i *Instance) Register(in InstanceInput, at time.Time) error {
	in, err := in.normalize()
	if err != nil {
		return err
	}
	if err := i.CheckIncarnation(in.Incarnation); err != nil {
		return err
	}
	if in.Incarnation == i.Incarnation {
		i.applyRestatement(in, at)
		return nil
	}
	i.beginIncarnation(in, cmp.Or(in.Incarnation, max(i.Incarnation+1, at.UnixMilli())), at)
	return nil
}

// CheckIncarnation refuses a call that an earlier start of the instance makes.
// Zero is a call that does not say which start it comes from.
func (i *Instance) CheckIncarnation(incarnation int64) error {
	if incarnation != 0 && incarnation < i.Incarnation {
		return fault.New(CodeStaleIncarnation,
			"This instance was started again since, as incarnation %d: stop.", i.Incarnation).At("incarnation")
	}
	return nil
}

func (i *Instance) beginIncarnation(in InstanceInput, incarnation int64, at time.Time) {
	i.URL, i.Weight, i.Metadata, i.TTL, i.Incarnation = in.URL, in.Weight, in.Metadata, in.TTL, incarnation
	i.LateSince, i.CheckFailure, i.Alive = nil, "", true
	if i.Mode == Draining {
		i.Mode, i.ModeReason = Passing, ""
	}
	i.deriveStatus()
	i.StatusSince = at
	i.recordEvent(EventInstanceRegistered, at)
}

// applyRestatement takes over what the same start of the instance says of itself. It also
// proves that it lives.
func (i *Instance) applyRestatement(in InstanceInput, at time.Time) {
	i.Alive = true
	equal := i.URL == in.URL && i.Weight == in.Weight && i.TTL == in.TTL && maps.Equal(i.Metadata, in.Metadata)
	i.URL, i.Weight, i.Metadata, i.TTL = in.URL, in.Weight, in.Metadata, in.TTL
	if !equal {
		i.LateSince = nil
		if i.deriveStatus() {
			i.StatusSince = at
		}
		i.recordEvent(EventInstanceRegistered, at)
		return
	}
	i.RenewLease(at)
}

// InstanceChange is an update of a running instance. Fields that are not set stay.
type InstanceChange struct {
	Weight   validate.Field[int]
	Metadata validate.Field[map[string]string]
	Invalid  error // mistakes that reading the input has found; reported with those of the rules
}

// Apply applies the change until the next start, which brings its own values, and records instance.registered; or does
// nothing if nothing would change.
func (i *Instance) Apply(c InstanceChange, at time.Time) error {
	in := InstanceInput{InstanceID: i.InstanceID, URL: i.URL, Weight: i.Weight, Metadata: i.Metadata, TTL: i.TTL}
	c.Weight.ApplyTo(&in.Weight)
	c.Metadata.ApplyTo(&in.Metadata)
	if c.Weight.Set && c.Weight.Value == 0 {
		in.Weight = -1 // it has no default here
	}
	in, err := in.normalize()
	if err := errors.Join(err, c.Invalid); err != nil {
		return err
	}
	if in.Weight != i.Weight || !maps.Equal(in.Metadata, i.Metadata) {
		i.Weight, i.Metadata = in.Weight, in.Metadata
		i.recordEvent(EventInstanceRegistered, at)
	}
	return nil
}

// Drain takes the instance out of use until its next start, or ends that; and
// records instance.status_changed if that changes anything.
func (i *Instance) Drain(reason string, at time.Time) error { return i.setMode(Draining, reason, at) }

// SetMaintenance takes the instance out of use, or with on false back into it.
func (i *Instance) SetMaintenance(on bool, reason string, at time.Time) error {
	if !on {
		return i.setMode(Passing, "", at)
	}
	return i.setMode(Maintenance, reason, at)
}

func (i *Instance) setMode(mode Status, reason string, at time.Time) error {
	if reason != "" {
		var err error
		if reason, err = validate.Line("reason", reason, maxReason); err != nil {
			return err
		}
	}
	i.Mode, i.ModeReason = mode, reason
	i.refreshStatus(false, at)
	return nil
}

// ExpireLease notes that the lease of the instance is over.
func (i *Instance) ExpireLease(at time.Time) {
	if i.LateSince == nil {
		i.LateSince = &at
		i.refreshStatus(true, at)
	}
}

// RenewLease notes that the instance has renewed its lease.
func (i *Instance) RenewLease(at time.Time) {
	if i.LateSince != nil {
		i.LateSince = nil
		i.refreshStatus(true, at)
	}
}

// SetCheckFailure sets the result of the instance's health checks: empty if they pass.
func (i *Instance) SetCheckFailure(failure string, at time.Time) {
	if failure != i.CheckFailure {
		i.CheckFailure = failure
		i.refreshStatus(true, at)
	}
}

// Remove records instance.deregistered; the store then deletes the instance.
func (i *Instance) Remove(at time.Time) {
	i.Removed = true
	i.recordEvent(EventInstanceDeregistered, at)
}

// TakeEvents returns the events recorded since the last call.
func (i *Instance) TakeEvents() []event.Event { return i.events.Take() }

// refreshStatus derives the status, and records instance.status_changed if there is
// another one, or another reason for it, or something else is known since.
func (i *Instance) refreshStatus(known bool, at time.Time) {
	reason := i.StatusReason
	moved := i.deriveStatus()
	if moved {
		i.StatusSince = at
	}
	if known || moved || i.StatusReason != reason {
		i.recordEvent(EventInstanceStatusChanged, at)
	}
}

// deriveStatus sets the status to what is known; moved says that it is another.
func (i *Instance) deriveStatus() (moved bool) {
	before := i.Status
	switch {
	case i.Mode != Passing:
		i.Status, i.StatusReason = i.Mode, i.ModeReason
	case i.LateSince != nil:
		i.Status, i.StatusReason = Critical, "its lease was not renewed"
	case i.CheckFailure != "":
		i.Status, i.StatusReason = Critical, i.CheckFailure
	default:
		i.Status, i.StatusReason = Passing, ""
	}
	return i.Status != before
}

func (i *Instance) recordEvent(t event.Type, at time.Time) {
	i.Version, i.UpdatedAt = i.Version+1, at
	i.events.Record(t, string(i.ID), i.Version, instanceSnapshot{
		i.InstanceID, i.URL, i.Weight, i.Status, i.StatusReason, i.StatusSince, i.Metadata, i.Incarnation, i.TTL.String(),
		i.Mode, i.ModeReason, i.LateSince, i.CheckFailure, i.CreatedAt,
	}, at, string(i.ServiceID))
}

// instanceSnapshot is the instance as its events show it: whole, as nodes keep
// their Directory by it.
type instanceSnapshot struct {
	InstanceID   string            `json:"instanceId"`
	URL          string            `json:"url"`
	Weight       int               `json:"weight"`
	Status       Status            `json:"status"`
	StatusReason string            `json:"statusReason"`
	StatusSince  time.Time         `json:"statusSince"`
	Metadata     map[string]string `json:"metadata"`
	Incarnation  int64             `json:"incarnation"`
	TTL          string            `json:"ttl"`
	Mode         Status            `doc:"what its owner asked for: DRAINING or MAINTENANCE, else PASSING" json:"mode"`
	ModeReason   string            `json:"modeReason"`
	LateSince    *time.Time        `json:"lateSince"`
	Failure      string            `json:"failure"`
	CreatedAt    time.Time         `json:"createdAt"`
}

// instanceFromEvent reads an instance back from an event.
func instanceFromEvent(e *event.Event) (*Instance, error) {
	var s instanceSnapshot
	if err := json.Unmarshal(e.Data, &s); err != nil {
		return nil, err
	}
	ttl, err := time.ParseDuration(s.TTL)
	if err != nil || len(e.Related) != 1 {
		return nil, fmt.Errorf("event %s does not describe an instance", e.ID)
	}
	return &Instance{
		ID: uid.Instance(e.SubjectID), ServiceID: uid.Service(e.Related[0]), InstanceID: s.InstanceID, URL: s.URL, Weight: s.Weight,
		Metadata: s.Metadata, Incarnation: s.Incarnation, TTL: ttl, Status: s.Status, StatusReason: s.StatusReason, StatusSince: s.StatusSince,
		Version: e.SubjectVersion, CreatedAt: s.CreatedAt, UpdatedAt: e.OccurredAt,
		Mode: s.Mode, ModeReason: s.ModeReason, LateSince: s.LateSince, CheckFailure: s.Failure, Removed: e.Type == EventInstanceDeregistered,
	}, nil
}

func errInstance(path, format string, args ...any) error {
	return fault.New(CodeInstanceInvalid, format, args...).At(path)
}
