package main

import (
	"crypto/rand"
	"fmt"
	"os"

	"backplane/internal/event"
	"backplane/internal/session"
)

// consumers returns what works on events inside the server.
func (n *node) consumers(a *app, hub *event.Hub) ([]*event.Consumer, error) {
	desk := event.Desk{Hub: hub, Offsets: n.db.Offsets(), Letters: n.db.Letters(), Holder: nodeName(), Logger: a.log}
	access, err := event.NewConsumer("access", n.sessions.EndAccess, desk, event.ConsumerConfig{Types: session.AccessTypes()})
	if err != nil {
		return nil, err
	}
	return []*event.Consumer{access}, nil
}

// nodeName is this process as an operator knows it, and unlike any other.
func nodeName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
}
