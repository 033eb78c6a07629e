package shim

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// idleAfter is how long nothing must have happened before memory is given back.
const idleAfter = time.Second

// loop dispatches descriptors' events and timers to functions.
type loop struct {
	epoll   int
	last    int32
	sources map[int32]*source
	timers  map[*timer]struct{}
	ended   bool
}

// source is a descriptor that the loop watches. Events carry its token, not its
// number, so that one meant for a closed descriptor finds nobody.
type source struct {
	fd     int
	token  int32
	paused bool
	events uint32
	ready  func(events uint32)
}

type timer struct {
	at  time.Time
	run func()
}

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an epoll instance: %w", err)
	}
	return &loop{epoll: fd, sources: map[int32]*source{}, timers: map[*timer]struct{}{}}, nil
}

// add watches fd for events; error and hang-up are always among them.
func (l *loop) add(fd int, events uint32, ready func(events uint32)) (*source, error) {
	for l.last++; l.last <= 0 || l.sources[l.last] != nil; l.last++ {
		l.last = max(l.last, 0)
	}
	s := &source{fd: fd, token: l.last, events: events, ready: ready}
	if err := l.control(unix.EPOLL_CTL_ADD, s); err != nil {
		return nil, fmt.Errorf("watching a descriptor: %w", err)
	}
	l.sources[s.token] = s
	return s, nil
}

func (l *loop) control(operation int, s *source) error {
	return unix.EpollCtl(l.epoll, operation, s.fd, &unix.EpollEvent{Events: s.events, Fd: s.token})
}

// want changes the events that s is watched for and ends a pause.
func (l *loop) want(s *source, events uint32) {
	if !s.paused && s.events == events {
		return
	}
	operation := unix.EPOLL_CTL_MOD
	if s.paused {
		operation = unix.EPOLL_CTL_ADD
	}
	s.events, s.paused = events, false
	// It fails for lack of memory alone; then the descriptor stays as it was.
	if err := l.control(operation, s); err != nil {
		logf("epoll_ctl: %v", err)
	}
}

// pause stops all events, hang-up too.
func (l *loop) pause(s *source) {
	if !s.paused {
		s.paused = true
		_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
	}
}

// remove forgets s; call it before its descriptor is closed.
func (l *loop) remove(s *source) {
	if s != nil && l.sources[s.token] == s {
		l.pause(s)
		delete(l.sources, s.token)
	}
}

// after runs a function once, later, unless stopped.
func (l *loop) after(d time.Duration, run func()) *timer {
	t := &timer{time.Now().Add(d), run}
	l.timers[t] = struct{}{}
	return t
}

func (l *loop) stop(t *timer) {
	delete(l.timers, t)
}

// run dispatches until ended is set. Idle is called when nothing has happened
// for a while after something did.
func (l *loop) run(idle func()) error {
	var events [32]unix.EpollEvent
	busy := true
	for !l.ended {
		wait, isTimer := l.wait(busy)
		n, err := unix.EpollWait(l.epoll, events[:], wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for events: %w", err)
		}
		for _, event := range events[:max(n, 0)] {
			if s := l.sources[event.Fd]; s != nil && !s.paused {
				s.ready(event.Events)
			}
		}
		switch ran := l.expire(); {
		case n > 0 || ran:
			busy = true
		case n == 0 && busy && !isTimer:
			idle()
			busy = false
		}
	}
	return nil
}

// wait returns epoll_wait's timeout in milliseconds and whether a timer set it.
func (l *loop) wait(busy bool) (milliseconds int, isTimer bool) {
	milliseconds = -1
	if busy {
		milliseconds = int(idleAfter / time.Millisecond)
	}
	for t := range l.timers {
		left := int(max(time.Until(t.at), 0)/time.Millisecond) + 1
		if milliseconds < 0 || left < milliseconds {
			milliseconds, isTimer = left, true
		}
	}
	return milliseconds, isTimer
}

func (l *loop) expire() (ran bool) {
	if len(l.timers) == 0 {
		return false
	}
	now := time.Now()
	for t := range l.timers {
		if !t.at.After(now) {
			delete(l.timers, t)
			t.run()
			ran = true
		}
	}
	return ran
}
