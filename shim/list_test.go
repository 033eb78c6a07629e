package shim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	proto "github.com/engined/engined/proto/shim"
)

// converse runs the loop of a shim with these processes until the test ends, and
// returns a client of it.
func converse(t *testing.T, processes map[string]*process) *proto.Client {
	t.Helper()
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	s := &Shim{Config: Config{ID: "crowded"}, loop: l, peers: map[*peer]struct{}{}, processes: processes}
	if s.memory, err = mapMemory(); err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{s: s, fd: fds[0]}
	// The loop ends with the conversation.
	if p.source, err = s.add(p.fd, unix.EPOLLIN, func(events uint32) { p.ready(events); s.ended = p.fd < 0 }); err != nil {
		t.Fatal(err)
	}
	client, ended := proto.NewClient(proto.NewConn(fds[1])), make(chan error)
	go func() { ended <- s.run(func() {}) }()
	t.Cleanup(func() {
		client.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		unix.Close(l.epoll)
		unix.Munmap(s.memory.all)
	})
	return client
}

// A supervisor that comes back is greeted, and learns all names, however many and
// however long they are.
func TestHelloAndListOfManyProcessesFitIntoPackets(t *testing.T) {
	processes, want := map[string]*process{}, []string(nil)
	for i := range 2000 {
		name := fmt.Sprintf("%04d%s", i, strings.Repeat("f", maxName-4))
		processes[name], want = &process{}, append(want, name)
	}
	client := converse(t, processes)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if hello, err := client.Hello(ctx); err != nil || hello.ID != "crowded" {
		t.Errorf("hello: %+v, %v", hello, err)
	}
	if got, err := client.List(ctx); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d of %d names, %v", len(got), len(want), err)
	}
}

func TestListOfFewProcessesIsOneAnswer(t *testing.T) {
	client := converse(t, map[string]*process{"b": {}, "init": {}, "a": {}})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if got, err := client.List(ctx); err != nil || !slices.Equal(got, []string{"a", "b", "init"}) {
		t.Errorf("%q, %v", got, err)
	}
}
