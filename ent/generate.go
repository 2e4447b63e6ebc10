package ent

//go:generate go tool ent generate --feature sql/lock,sql/upsert,sql/versioned-migration,sql/modifier,sql/execquery ./schema
