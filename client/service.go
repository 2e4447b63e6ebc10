package client

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/client/policy"
)

// Strategy says how calls are spread over the instances of a service. Weights count in all of them.
type Strategy = policy.Strategy

// The strategies.
const (
	RoundRobin       = policy.RoundRobin       // each in turn
	Random           = policy.Random           // at random
	LeastConnections = policy.LeastConnections // the instance with the fewest calls in flight
	PowerOfTwo       = policy.PowerOfTwo       // of two at random, the one with fewer calls in flight
	ConsistentHash   = policy.ConsistentHash   // equal keys to the same instance
)

// Service is a name that callers use, and what all instances behind it share.
type Service struct {
	Name        string // 1 to 63 lower-case letters and digits, with -, . and _ between them
	Description string
	Tags        []string
	Metadata    map[string]string
	Strategy    Strategy     // default RoundRobin
	HealthCheck *HealthCheck // nil: heartbeats alone say that an instance lives
}

// HealthCheck is a request that the registry sends to each instance; a status
// below 400 is well. See Health.
type HealthCheck struct {
	Path     string        // behind the instance's URL, e.g. /healthz
	Interval time.Duration // default 10 s
	Timeout  time.Duration // default 2 s
}

var defineService = operation{"registerService", `mutation($in: RegisterServiceInput!) { registerService(input: $in) { userErrors { code message path } } }`}

// DefineService creates the service, or changes one that is there to what is said here;
// it may be called at each start. The token needs the scope service:NAME.
func (c *Client) DefineService(ctx context.Context, s Service) error {
	in := map[string]any{"name": s.Name, "description": s.Description, "tags": orEmpty(s.Tags), "metadata": notNil(s.Metadata)}
	if s.Strategy != "" {
		in["strategy"] = s.Strategy
	}
	if h := s.HealthCheck; h != nil {
		check := map[string]any{"path": h.Path}
		if h.Interval != 0 {
			check["interval"] = h.Interval.String()
		}
		if h.Timeout != 0 {
			check["timeout"] = h.Timeout.String()
		}
		in["healthCheck"] = check
	}
	return c.mutate(ctx, defineService, in, &struct{}{})
}

func orEmpty(list []string) []string { return append([]string{}, list...) }

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
