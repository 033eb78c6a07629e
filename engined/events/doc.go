// Package events is the log of what happened in engined, as Docker's clients
// read it from GET /events: the last [Kept] messages in memory, and the new
// ones for whoever subscribes.
//
// Publishing never waits for a subscriber. One that falls more than [Backlog]
// messages behind loses its subscription, visibly: its channel is closed.
//
// Events are told after the fact is on disk, and are not on disk themselves:
// after a restart of engined the log begins empty, as dockerd's does.
package events
