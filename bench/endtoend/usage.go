package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what a target has used since its start.
type usage struct {
	server   time.Duration // processor time of its process
	database time.Duration // processor time of its sessions in PostgreSQL, and of the writer of the log, which all share
	memory   int64         // resident bytes of its process
}

// tick is the unit of processor time in /proc, which is the same on all platforms of Linux.
const tick = 10 * time.Millisecond

func (s *setup) readUsage(t *target) (u usage, err error) {
	stat, err := readStat(t.pid)
	if err != nil {
		return u, err
	}
	u.server, u.memory = stat.cpu, stat.memory
	if t.database == "" {
		return u, nil
	}
	u.database, err = s.sessionsOf(t.database)
	return u, err
}

// stat is what /proc says about a process.
type stat struct {
	parent int
	cpu    time.Duration
	memory int64
}

func readStat(pid int) (s stat, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, fmt.Errorf("the benchmark needs /proc of Linux: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name, from the third field on
	fields := strings.Fields(rest)
	if len(fields) < 22 {
		return s, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	number := func(field int) int64 { n, _ := strconv.ParseInt(fields[field-3], 10, 64); return n }
	return stat{int(number(4)), time.Duration(number(14)+number(15)) * tick, number(24) * int64(os.Getpagesize())}, nil
}

// sessionsOf sums the processor time of PostgreSQL for a database. Checkpoints and vacuum, which come at
// times of their own, do not count.
func (s *setup) sessionsOf(database string) (sum time.Duration, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		title, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !strings.HasPrefix(string(title), "postgres: ") {
			continue // it has ended, or is another program
		}
		if !strings.Contains(string(title), " "+database+" ") && !strings.HasPrefix(string(title), "postgres: walwriter") {
			continue
		}
		if st, err := readStat(pid); err == nil && st.parent == s.postmaster {
			sum += st.cpu
		}
	}
	return sum, nil
}
