package events

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	apievents "github.com/moby/moby/api/types/events"
)

func publish(l *Log, ids ...string) {
	for _, id := range ids {
		l.Publish(apievents.ContainerEventType, apievents.ActionStart, apievents.Actor{ID: id})
	}
}

func ids(messages <-chan apievents.Message) (got []string) {
	for message := range messages {
		got = append(got, message.Actor.ID)
	}
	return got
}

func subscribe(t *testing.T, l *Log, since, until time.Time, match func(apievents.Message) bool) <-chan apievents.Message {
	t.Helper()
	messages, err := l.Subscribe(t.Context(), since, until, match)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSinceAndUntilCutTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		publish(l, "a")
		time.Sleep(time.Second)
		since := time.Now()
		publish(l, "b")
		time.Sleep(time.Second)
		between := time.Now()
		time.Sleep(time.Second)
		publish(l, "c")
		want(t, ids(subscribe(t, l, since, time.Now(), nil)), "b", "c")
		want(t, ids(subscribe(t, l, since, between, nil)), "b")
		want(t, ids(subscribe(t, l, time.Time{}, time.Now(), nil)))
		l.Close()
	})
}

func TestASubscriberGetsStoredThenNewUntilTheTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		publish(l, "old")
		messages := subscribe(t, l, time.Now().Add(-time.Minute), time.Now().Add(time.Minute), nil)
		publish(l, "new")
		start := time.Now()
		want(t, ids(messages), "old", "new")
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("closed after %v", waited)
		}
		l.Close()
	})
}

func TestMatchFilters(t *testing.T) {
	l := New()
	publish(l, "a", "b")
	messages := subscribe(t, l, time.Unix(1, 0), time.Now(), func(m apievents.Message) bool { return m.Actor.ID == "b" })
	want(t, ids(messages), "b")
	l.Close()
}

func TestOnlyTheLastAreKept(t *testing.T) {
	l := New()
	for i := range Kept + 10 {
		publish(l, fmt.Sprint(i))
	}
	got := ids(subscribe(t, l, time.Unix(1, 0), time.Now(), nil))
	if len(got) != Kept || got[0] != "10" {
		t.Errorf("%d messages from %v", len(got), got[0])
	}
	l.Close()
}

func TestASubscriberThatDoesNotReadIsCutOffAndDelaysNobody(t *testing.T) {
	l := New()
	stuck := subscribe(t, l, time.Time{}, time.Time{}, nil)
	for i := range 2*Backlog + 2 {
		publish(l, fmt.Sprint(i))
	}
	if got := len(ids(stuck)); got > 2*Backlog {
		t.Errorf("got all %d messages", got)
	}
	l.Close()
}

func TestASubscriptionEndsWithItsContextAndWithTheLog(t *testing.T) {
	l := New()
	ctx, cancel := context.WithCancel(t.Context())
	messages, err := l.Subscribe(ctx, time.Time{}, time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	want(t, ids(messages))
	other := subscribe(t, l, time.Time{}, time.Time{}, nil)
	publish(l, "last")
	read := make(chan []string)
	go func() { read <- ids(other) }()
	l.Close()
	want(t, <-read, "last")
	want(t, ids(subscribe(t, l, time.Unix(1, 0), time.Time{}, nil)), "last")
}
