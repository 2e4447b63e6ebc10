package store

import "golang.org/x/sys/unix"

// diskSpace returns how many bytes this process may still write to the file system of the folder, and whether
// that is mounted read-only.
func diskSpace(folder string) (free uint64, readOnly bool, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return 0, false, err
	}
	return s.Bavail * uint64(s.Bsize), s.Flags&unix.ST_RDONLY != 0, nil //nolint:gosec // a size is not negative
}
