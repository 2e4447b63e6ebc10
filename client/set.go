package client

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Instance is one running copy of a service.
type Instance struct {
	ID          string // of the registry: another one after it was removed and came again
	InstanceID  string // of its owner's choice, the same after a restart
	URL         string
	Weight      int
	Metadata    map[string]string // shared; must not be changed
	Incarnation int64             // which start of it this is
	Status      InstanceStatus
	Since       time.Time // when it came to this status
}

// described is an instance as answers and events of the registry spell it.
type described struct {
	InstanceID  string            `json:"instanceId"`
	URL         string            `json:"url"`
	Weight      int               `json:"weight"`
	Status      InstanceStatus    `json:"status"`
	StatusSince time.Time         `json:"statusSince"`
	Metadata    map[string]string `json:"metadata"`
	Incarnation int64             `json:"incarnation"`
}

func (d *described) instance(id string) Instance {
	return Instance{id, d.InstanceID, d.URL, d.Weight, d.Metadata, d.Incarnation, d.Status, d.StatusSince}
}

// Set is a service with those of its instances that calls may go to, as it was
// known at one moment. It is shared and must not be changed.
type Set struct {
	Service   string
	Strategy  Strategy   // that its owner wants
	Instances []Instance // by the ids that their owners gave them

	// Degraded is since when most healthy instances have failed; the last healthy
	// ones stay in the set (mass-failure guard). Zero while it is not degraded.
	Degraded time.Time
	// Stale is since when the registry has been unreachable; the set stays as it was.
	// Zero while it is reachable. Trouble says why.
	Stale   time.Time
	Trouble error
}

// serviceState is a service with all its instances as a watch last received them, in use or
// not. It is for one goroutine.
type serviceState struct {
	version       int // of the service
	strategy      Strategy
	degradedSince time.Time // zero if the service is not degraded
	instances     map[string]versionedInstance
}

// versionedInstance is an instance at a version of it.
type versionedInstance struct {
	Instance
	version int
}

// inUse is the registry's rule: calls go to instances that pass and, while the service is
// degraded, to those that passed before.
func (k *serviceState) inUse(i *Instance) bool {
	return i.Status == Passing || !k.degradedSince.IsZero() && i.Status == Critical && !i.Since.Before(k.degradedSince)
}

func (k *serviceState) set(service string) *Set {
	s := &Set{Service: service, Strategy: k.strategy, Degraded: k.degradedSince}
	for _, i := range k.instances {
		if k.inUse(&i.Instance) {
			s.Instances = append(s.Instances, i.Instance)
		}
	}
	slices.SortFunc(s.Instances, func(a, b Instance) int { return strings.Compare(a.InstanceID, b.InstanceID) })
	return s
}

// registryEvent is an event of the registry, which carries its subject whole.
type registryEvent struct {
	Type           string          `json:"type"`
	SubjectID      string          `json:"subjectId"`
	SubjectVersion int             `json:"subjectVersion"`
	Data           json.RawMessage `json:"data"`
}

const eventsField = "serviceEvents"

const subscribeService = `subscription($name: String!, $after: Cursor) { serviceEvents(service: $name, after: $after) { type subjectId subjectVersion data } }`

// apply applies an event; one older than the known version changes nothing.
func (k *serviceState) apply(n registryEvent) error {
	switch n.Type {
	case "SERVICE_REGISTERED", "SERVICE_UPDATED", "SERVICE_DEREGISTERED":
		return k.applyService(n)
	case "INSTANCE_REGISTERED", "INSTANCE_STATUS_CHANGED":
		return k.applyInstance(n)
	case "INSTANCE_DEREGISTERED":
		delete(k.instances, n.SubjectID)
	}
	return nil // an event type of a later release
}

func (k *serviceState) applyService(n registryEvent) error {
	var s struct {
		Strategy      Strategy   `json:"strategy"`
		DegradedSince *time.Time `json:"degradedSince"`
	}
	if n.SubjectVersion <= k.version {
		return nil
	}
	if err := json.Unmarshal(n.Data, &s); err != nil {
		return err
	}
	k.version, k.strategy, k.degradedSince = n.SubjectVersion, s.Strategy, time.Time{}
	if s.DegradedSince != nil {
		k.degradedSince = *s.DegradedSince
	}
	if n.Type == "SERVICE_DEREGISTERED" {
		clear(k.instances) // they go with it
	}
	return nil
}

func (k *serviceState) applyInstance(n registryEvent) error {
	var i described
	if n.SubjectVersion <= k.instances[n.SubjectID].version {
		return nil
	}
	if err := json.Unmarshal(n.Data, &i); err != nil {
		return err
	}
	k.instances[n.SubjectID] = versionedInstance{i.instance(n.SubjectID), n.SubjectVersion}
	return nil
}
