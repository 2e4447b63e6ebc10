package store

import (
	"context"
	"fmt"

	"github.com/backplane-dev/backplane/internal/validate"
)

// afterMigration holds what SQL cannot express of a migration: it runs in the same
// transaction, after the statements of the file.
var afterMigration = map[string]func(context.Context, conn) error{
	"0010_sort_keys": writeSortKeys,
}

// sortedName is a column whose text lists are sorted by, and the column of its sort key.
type sortedName struct{ table, name, key string }

// writeSortKeys writes the sort keys that validate.SortKey computes of all names.
func writeSortKeys(ctx context.Context, c conn) error {
	for _, s := range []sortedName{{"users", "username", "username_sort"}, {"products", "name", "name_key"}} {
		for last, more := "", true; more; {
			var err error
			if last, more, err = writeSortKeysAfter(ctx, c, s, last); err != nil {
				return fmt.Errorf("write the sort keys of %s: %w", s.table, err)
			}
		}
	}
	return nil
}

// writeSortKeysAfter writes the sort keys of the next rows after an id; it returns the last
// of them and whether there may be more.
func writeSortKeysAfter(ctx context.Context, c conn, s sortedName, after string) (last string, more bool, err error) {
	type row struct{ id, name, key string }
	var rows []row
	err = c.eachRow(ctx, `SELECT id, `+s.name+`, `+s.key+` FROM `+s.table+` WHERE id > ? ORDER BY id LIMIT ?`, []any{after, maxIDs}, func(scan func(...any) error) error {
		var r row
		err := scan(&r.id, &r.name, &r.key)
		rows = append(rows, r)
		return err
	})
	for _, r := range rows {
		last = r.id
		if key := validate.SortKey(r.name); err == nil && key != r.key {
			_, err = c.exec(ctx, `UPDATE `+s.table+` SET `+s.key+` = ? WHERE id = ?`, key, r.id)
		}
	}
	return last, len(rows) == maxIDs, err
}
