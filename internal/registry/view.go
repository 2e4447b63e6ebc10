package registry

import (
	"slices"
	"sort"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// View is a service as one caller may see it: any signed-in caller sees its name,
// description and health; service callers and managers see all of it.
type View struct {
	ID          uid.Service
	Name        string
	Description string
	Health      Health
	Version     int
	CreatedAt   time.Time
	UpdatedAt   time.Time

	service  *Service // nil if the caller may not see more
	degraded *Degraded
	cursor   *event.Cursor
}

// view returns the service as the caller may see it; the cursor was read before the service.
func (r *Registrar) view(caller *auth.Principal, s *Service, place *event.Cursor) *View {
	health, degraded := r.directory.Health(s.ID)
	v := &View{
		ID: s.ID, Name: s.Name, Description: s.Description, Health: health, Version: s.Version, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt,
	}
	if maySeeAll(caller, s) {
		v.service, v.degraded, v.cursor = s, degraded, place
	}
	return v
}

// maySeeAll reports whether the caller may see the whole of the service.
func maySeeAll(caller *auth.Principal, s *Service) bool {
	return caller.MayUseServices() || caller.MayManageService(s.Name)
}

// Complete reports whether the caller may see the whole of the service; if not, what
// the methods below return is nil.
func (v *View) Complete() bool { return v.service != nil }

// Tags returns the tags of the service.
func (v *View) Tags() []string {
	if v.service == nil {
		return nil
	}
	return append([]string{}, v.service.Tags...)
}

// Metadata returns the metadata that the service's owner set.
func (v *View) Metadata() map[string]string {
	if v.service == nil {
		return nil
	}
	return orEmptyMap(v.service.Metadata)
}

// Strategy returns how calls are spread.
func (v *View) Strategy() *Strategy {
	if v.service == nil {
		return nil
	}
	return &v.service.Strategy
}

// TrustedAddresses returns the networks and URLs of the instances that ADMIN trusts.
func (v *View) TrustedAddresses() []string {
	if v.service == nil {
		return nil
	}
	return append([]string{}, v.service.TrustedAddresses...)
}

// Trusted returns whether ADMIN trusts the service, at its trusted addresses.
func (v *View) Trusted() *bool {
	if v.service == nil {
		return nil
	}
	return &v.service.Trusted
}

// Public returns whether the gateway lets anonymous callers call the service.
func (v *View) Public() *bool {
	if v.service == nil {
		return nil
	}
	return &v.service.Public
}

// PaymentProvider returns whether payments may be asked of the service.
func (v *View) PaymentProvider() *bool {
	if v.service == nil {
		return nil
	}
	return &v.service.PaymentProvider
}

// HealthCheck returns how instances are checked, nil also if they are not.
func (v *View) HealthCheck() *HealthCheck {
	if v.service == nil {
		return nil
	}
	return v.service.HealthCheck
}

// Degraded returns why more instances are in use than are known to be healthy; nil
// also if that is not so.
func (v *View) Degraded() *Degraded { return v.degraded }

// Cursor returns a cursor of the log such that the view and what is read of its
// instances hold all events up to there; nil also while the node may be missing events.
func (v *View) Cursor() *event.Cursor { return v.cursor }

func (v *View) matches(f ServiceFilter) bool {
	return (f.Health == nil || v.Health == *f.Health) && (f.Tag == nil || slices.Contains(v.Tags(), *f.Tag))
}

func orEmptyMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// pageOf cuts a page from rows that are in memory, sorted by a key that no two
// of them share. desc turns them around.
func pageOf[T any](rows []T, desc bool, order string, args page.Args, key func(T) string) (page.Page[T], error) {
	w, err := args.Window(order)
	if err != nil {
		return page.Page[T]{}, err
	}
	if desc {
		rows = slices.Clone(rows)
		slices.Reverse(rows)
	}
	behind := func(k string) int { // the first row behind the key
		return sort.Search(len(rows), func(n int) bool { return key(rows[n]) > k && !desc || key(rows[n]) < k && desc })
	}
	ahead := func(k string) int { // the number of rows ahead of the key
		return sort.Search(len(rows), func(n int) bool { return key(rows[n]) >= k && !desc || key(rows[n]) <= k && desc })
	}
	from, to := min(w.Skip, len(rows)), len(rows)
	if w.After != nil {
		from = behind(w.After.Key)
	}
	if w.Before != nil {
		to = max(from, ahead(w.Before.Key))
	}
	rows = rows[from:to]
	if w.Backward {
		rows = slices.Clone(rows[max(0, len(rows)-w.Limit-1):])
		slices.Reverse(rows)
	} else {
		rows = rows[:min(len(rows), w.Limit+1)]
	}
	return page.Cut(w, rows, func(row T) page.Cursor { return page.Cursor{Order: order, Key: key(row)} }), nil
}
