package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/entsql"
	"entgo.io/ent/schema"
	"entgo.io/ent/schema/field"
	"entgo.io/ent/schema/index"

	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// asJSON is the type of a JSON column that no query reads into.
var asJSON = map[string]string{dialect.Postgres: "json"}

// Service holds the schema of services, those that were deregistered included.
type Service struct{ ent.Schema }

// Fields of Service.
func (Service) Fields() []ent.Field {
	return appendFields([]ent.Field{
		field.String("id").GoType(uid.Service("")).Immutable(),
		field.String("name").Unique().Immutable(),
		field.String("description"),
		field.JSON("tags", []string{}).SchemaType(asJSON),
		field.JSON("metadata", map[string]string{}).SchemaType(asJSON),
		field.String("strategy").GoType(registry.Strategy("")),
		field.Bool("trusted"),
		field.JSON("trusted_addresses", []string{}).Optional().SchemaType(asJSON),
		field.Bool("public").Default(false).Annotations(entsql.Default("0")),
		field.Bool("payment_provider").Default(false).Annotations(entsql.Default("0")),
		field.JSON("health_check", &registry.HealthCheck{}).Optional().SchemaType(asJSON),
		field.Time("doubted_since").Optional().Nillable(), // since when most instances that were healthy have failed (panic threshold)
		field.Bool("deregistered"),
	}, timeFields()...)
}

// Indexes of Service.
func (Service) Indexes() []ent.Index {
	return []ent.Index{index.Fields("updated_at").StorageKey("service_ended").Annotations(entsql.IndexWhere("deregistered"))}
}

// Annotations of Service.
func (Service) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"services_strategy_is_known": oneOf("strategy", registry.Strategies()...),
		"services_version_counts":    "version >= 1",
	})
}

// Instance holds the schema of instances, without their leases: a renewal does
// not change the instance.
type Instance struct{ ent.Schema }

// Fields of Instance.
func (Instance) Fields() []ent.Field {
	return appendFields([]ent.Field{
		field.String("id").GoType(uid.Instance("")).Immutable(),
		field.String("service_id").GoType(uid.Service("")).Immutable(),
		field.String("instance_id").Immutable(), // chosen by its owner
		field.String("url"),
		field.Int("weight"),
		field.JSON("metadata", map[string]string{}).SchemaType(asJSON),
		field.Int64("incarnation"),
		field.Int64("ttl_ms"),
		field.String("status").GoType(registry.Status("")),
		field.String("status_reason"),
		field.Time("status_since"),
		field.String("mode").GoType(registry.Status("")), // the status that its operator set
		field.String("mode_reason"),
		field.Time("late_since").Optional().Nillable(),
		field.String("failure"), // of its checks; empty if they pass
	}, timeFields()...)
}

// Indexes of Instance.
func (Instance) Indexes() []ent.Index {
	return []ent.Index{
		index.Fields("service_id", "instance_id").Unique(),
		index.Fields("late_since").Annotations(entsql.IndexWhere("late_since IS NOT NULL")), // what the reconcile loop scans
	}
}

// Annotations of Instance.
func (Instance) Annotations() []schema.Annotation {
	return checkConstraints(map[string]string{
		"instances_status_is_known": oneOf("status", registry.Statuses()...),
		"instances_weight_counts":   "weight >= 1",
		"instances_version_counts":  "version >= 1",
	})
}

// Lease holds the schema of the leases of instances: one narrow row each, which
// renewals overwrite many at a time.
type Lease struct{ ent.Schema }

// Fields of Lease.
func (Lease) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").StorageKey("instance_id").GoType(uid.Instance("")).Immutable(),
		field.Int64("incarnation"),
		field.Int64("ttl_ms"),
		field.Time("expires_at"),
		field.Time("seen_at"), // of the last renewal
		field.Int("inflight"),
		field.Time("checked_at").Optional().Nillable(), // of the last health check of this incarnation; null without one
		field.Bool("check_passed").Optional().Nillable(),
		field.Int64("check_ms").Optional().Nillable(),
		field.String("check_output").Optional().Nillable(),
	}
}

// Indexes of Lease.
func (Lease) Indexes() []ent.Index { return []ent.Index{index.Fields("expires_at")} }

// Picker holds the schema of nodes that pick instances: the calls that each has
// in flight, which the other nodes count too.
type Picker struct{ ent.Schema }

// Fields of Picker. An expired row belongs to a node that has stopped.
func (Picker) Fields() []ent.Field {
	return []ent.Field{
		field.String("id"),
		field.Time("expires_at"),
		field.JSON("calls", map[uid.Instance]int{}).SchemaType(asJSON),
	}
}

// Outcome holds the schema of outcomes that were reported to another node than
// the one that picked, until the node that picked reads and deletes them.
type Outcome struct{ ent.Schema }

// Fields of Outcome.
func (Outcome) Fields() []ent.Field {
	return []ent.Field{
		field.String("id"), // of the pick
		field.String("picker_id"),
		field.Bool("ok"),
		field.Int64("latency_ms"),
		field.Time("reported_at"),
	}
}

// Indexes of Outcome.
func (Outcome) Indexes() []ent.Index {
	return []ent.Index{index.Fields("picker_id"), index.Fields("reported_at")}
}
