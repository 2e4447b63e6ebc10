package ent

// The packages hook and enttest are generated always and used nowhere: rules live in the
// domains, and tests open databases through internal/testenv.
//
//go:generate go tool ent generate --feature sql/lock,sql/upsert,sql/versioned-migration,sql/modifier,sql/execquery ./schema
//go:generate rm -r hook enttest
