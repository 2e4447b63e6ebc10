package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// openFile is the identity of the SQLite file that the connections have open. What is stored in a
// file that was removed or replaced since is lost with the last connection.
type openFile struct {
	path string
	info fs.FileInfo
}

// check returns an Unavailable error if the path does not lead to the open file any more. It is nil
// for PostgreSQL.
func (f *openFile) check() error {
	if f == nil {
		return nil
	}
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("the database file %s was removed while it is open: stop the server, put the file back from a backup, and start again", f.path)
	case err != nil:
		err = fmt.Errorf("look at the database file: %w", err)
	case !os.SameFile(info, f.info):
		err = fmt.Errorf("the database file %s was replaced while it is open: stop the server, and start it on the file that is to be served (after backplane migrate --after-restore, if it is a backup)", f.path)
	default:
		return nil
	}
	return cannotStore.Because(err)
}
