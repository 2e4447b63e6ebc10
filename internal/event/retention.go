package event

// Cleaner is the name under which the cleaner of the log is a reader: its place
// is up to where it has removed events.
const Cleaner = "retention"
