package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Service is a name that callers use, and what all instances behind it share.
// A deregistered one is kept, so that its id and version go on if it returns.
type Service struct {
	ID          uid.Service
	Name        string // unique
	Description string
	Tags        []string // sorted
	Metadata    map[string]string
	Strategy    Strategy
	Trusted     bool // TrustsInstance says what for; only ADMIN says so
	// TrustedAddresses are the networks and URLs of the instances that are trusted; only ADMIN sets them.
	TrustedAddresses []string
	Public           bool         // the gateway lets anonymous callers call it; only ADMIN says so
	PaymentProvider  bool         // payments may be asked of it; only ADMIN says so
	HealthCheck      *HealthCheck // nil: only the lease says whether an instance lives
	DegradedSince    *time.Time   // since when most of its healthy instances have failed; nil if it is not degraded
	Deregistered     bool
	Version          int // raised by each change
	CreatedAt        time.Time
	UpdatedAt        time.Time
	events           event.Recorder
}

// HealthCheck is a request that each instance must answer with a status below 400.
type HealthCheck struct {
	Path      string        `json:"path"` // behind the instance's URL
	Interval  time.Duration `json:"interval"`
	Timeout   time.Duration `json:"timeout"`
	Healthy   int           `json:"healthyThreshold"`   // successes in a row that make an instance pass
	Unhealthy int           `json:"unhealthyThreshold"` // failures in a row that make it critical
}

// ServiceInput describes a service.
type ServiceInput struct {
	Name        string
	Description string
	Tags        []string
	Metadata    map[string]string
	Strategy    Strategy // default ROUND_ROBIN
	HealthCheck *HealthCheck
}

// NewService returns a new service and records service.registered.
func NewService(in ServiceInput, at time.Time) (*Service, error) {
	s := &Service{ID: uid.NewService(at), Name: in.Name, Version: 1, CreatedAt: at, UpdatedAt: at}
	if err := validateName(in.Name); err != nil {
		return nil, err
	}
	if err := s.applyInput(in); err != nil {
		return nil, err
	}
	s.recordEvent(EventServiceRegistered, at)
	return s, nil
}

// Register is for a service that exists already: it brings a deregistered one
// back, neither trusted nor public nor payment provider any more, and is an update of
// any other.
func (s *Service) Register(in ServiceInput, at time.Time) error {
	before := s.clone()
	if err := s.applyInput(in); err != nil {
		return err
	}
	if s.Deregistered {
		s.Deregistered, s.Trusted, s.TrustedAddresses, s.Public, s.PaymentProvider = false, false, nil, false, false
		s.Version, s.UpdatedAt = s.Version+1, at
		s.recordEvent(EventServiceRegistered, at)
		return nil
	}
	s.recordUpdate(before, at)
	return nil
}

// ServiceChange is an update of a service. Fields that are not set stay.
type ServiceChange struct {
	Description      validate.Field[string]
	Tags             validate.Field[[]string]
	Metadata         validate.Field[map[string]string]
	Strategy         validate.Field[Strategy]
	HealthCheck      validate.Field[*HealthCheck]
	Trusted          validate.Field[bool]
	TrustedAddresses validate.Field[[]string]
	Public           validate.Field[bool]
	PaymentProvider  validate.Field[bool]
	Invalid          error // mistakes that reading the input has found; reported with those of the rules
}

// Apply applies the change and records service.updated, or does nothing if
// nothing would change.
func (s *Service) Apply(c ServiceChange, at time.Time) error {
	before := s.clone()
	in := s.currentInput()
	c.Description.ApplyTo(&in.Description)
	c.Tags.ApplyTo(&in.Tags)
	c.Metadata.ApplyTo(&in.Metadata)
	c.Strategy.ApplyTo(&in.Strategy)
	c.HealthCheck.ApplyTo(&in.HealthCheck)
	if err := errors.Join(s.applyInput(in), s.applyTrust(c), c.Invalid); err != nil {
		return err
	}
	c.Public.ApplyTo(&s.Public)
	c.PaymentProvider.ApplyTo(&s.PaymentProvider)
	s.recordUpdate(before, at)
	return nil
}

// applyTrust applies what the change says of trust. A service is trusted at addresses, or not at all.
func (s *Service) applyTrust(c ServiceChange) error {
	if c.TrustedAddresses.Set {
		addresses, err := normalizeTrustedAddresses(c.TrustedAddresses.Value)
		if err != nil {
			return err
		}
		s.TrustedAddresses = addresses
	}
	c.Trusted.ApplyTo(&s.Trusted)
	if (c.Trusted.Set || c.TrustedAddresses.Set) && s.Trusted && len(s.TrustedAddresses) == 0 {
		return fault.New(CodeServiceInvalid, "A trusted service needs the networks or URLs of the instances that are trusted.").At("trustedAddresses")
	}
	return nil
}

// EnterDegraded sets DegradedSince and records service.updated, unless it is set.
func (s *Service) EnterDegraded(since, at time.Time) {
	if s.DegradedSince == nil {
		before := s.clone()
		s.DegradedSince = &since
		s.recordUpdate(before, at)
	}
}

// LeaveDegraded clears DegradedSince and records service.updated, if it was set.
func (s *Service) LeaveDegraded(at time.Time) {
	if s.DegradedSince != nil {
		before := s.clone()
		s.DegradedSince = nil
		s.recordUpdate(before, at)
	}
}

// Deregister ends the service and records service.deregistered; on one that has
// ended it does nothing. Its instances are removed with it.
func (s *Service) Deregister(at time.Time) {
	if s.Deregistered {
		return
	}
	s.Deregistered, s.DegradedSince = true, nil
	s.Version, s.UpdatedAt = s.Version+1, at
	s.recordEvent(EventServiceDeregistered, at)
}

// TakeEvents returns the events recorded since the last call.
func (s *Service) TakeEvents() []event.Event { return s.events.Take() }

func (s *Service) currentInput() ServiceInput {
	return ServiceInput{s.Name, s.Description, s.Tags, s.Metadata, s.Strategy, s.HealthCheck}
}

func (s *Service) clone() *Service {
	c := *s
	return &c
}

func (s *Service) recordUpdate(before *Service, at time.Time) {
	if before.equal(s) {
		return
	}
	s.Version, s.UpdatedAt = s.Version+1, at
	s.recordEvent(EventServiceUpdated, at)
}

func (s *Service) equal(o *Service) bool {
	return s.Description == o.Description && slices.Equal(s.Tags, o.Tags) && maps.Equal(s.Metadata, o.Metadata) &&
		s.Strategy == o.Strategy && s.Trusted == o.Trusted && slices.Equal(s.TrustedAddresses, o.TrustedAddresses) && s.Public == o.Public && s.PaymentProvider == o.PaymentProvider &&
		equalPointers(s.HealthCheck, o.HealthCheck) && equalPointers(s.DegradedSince, o.DegradedSince)
}

func equalPointers[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// serviceSnapshot is the service as its events show it: whole, as nodes keep
// their Directory by it.
type serviceSnapshot struct {
	Name             string            `json:"name"`
	Description      string            `json:"description"`
	Tags             []string          `json:"tags"`
	Metadata         map[string]string `json:"metadata"`
	Strategy         Strategy          `json:"strategy"`
	Trusted          bool              `json:"trusted"`
	TrustedAddresses []string          `json:"trustedAddresses"`
	Public           bool              `json:"public"`
	PaymentProvider  bool              `json:"paymentProvider"`
	HealthCheck      *HealthCheck      `json:"healthCheck"`
	DegradedSince    *time.Time        `json:"degradedSince"`
	CreatedAt        time.Time         `json:"createdAt"`
}

// serviceFromEvent reads a service back from an event.
func serviceFromEvent(e *event.Event) (*Service, error) {
	var s serviceSnapshot
	if err := json.Unmarshal(e.Data, &s); err != nil {
		return nil, err
	}
	return &Service{
		ID: uid.Service(e.SubjectID), Name: s.Name, Description: s.Description, Tags: s.Tags, Metadata: s.Metadata, Strategy: s.Strategy,
		Trusted: s.Trusted, TrustedAddresses: s.TrustedAddresses, Public: s.Public, PaymentProvider: s.PaymentProvider, HealthCheck: s.HealthCheck, DegradedSince: s.DegradedSince, Deregistered: e.Type == EventServiceDeregistered,
		Version: e.SubjectVersion, CreatedAt: s.CreatedAt, UpdatedAt: e.OccurredAt,
	}, nil
}

func (s *Service) recordEvent(t event.Type, at time.Time) {
	s.events.Record(t, string(s.ID), s.Version, serviceSnapshot{
		s.Name, s.Description, s.Tags, s.Metadata, s.Strategy, s.Trusted, s.TrustedAddresses, s.Public, s.PaymentProvider, s.HealthCheck, s.DegradedSince, s.CreatedAt,
	}, at)
}

// applyInput checks the input, all of it but the name, and takes it over.
func (s *Service) applyInput(in ServiceInput) error {
	description, errDescription := validate.Text("description", in.Description, maxDescription)
	tags, errTags := normalizeTags(in.Tags)
	in.Strategy = cmp.Or(in.Strategy, RoundRobin)
	check, errCheck := in.HealthCheck.normalize()
	if err := errors.Join(errDescription, errTags, validateMetadata(in.Metadata), in.Strategy.Check(), errCheck); err != nil {
		return err
	}
	s.Description, s.Tags, s.Metadata, s.Strategy, s.HealthCheck = description, tags, orEmptyMap(in.Metadata), in.Strategy, check
	return nil
}
