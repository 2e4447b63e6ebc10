package event

// Notification is what nodes tell one another. It is never more than a reason to look.
type Notification struct {
	Head    Position // the log goes up to here; 0 if this is not about that
	Waiting bool     // there are events without a position
}
