package supervisor_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// limited gives a container 32 MiB.
func limited(spec *specs.Spec) {
	limit := int64(32 << 20)
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
}

// hungry is shell that takes all memory there is.
const hungry = "x=0123456789; while :; do x=$x$x$x; done"

// TestOOMIsAnEvent: the exit says so, too.
func TestOOMIsAnEvent(t *testing.T) {
	s := newStack(t)
	if _, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "a", BundlePath: s.bundle(hungry, limited)}); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait("a", ""); exit.Status != 137 || !exit.OomKilled {
		t.Errorf("%v", exit)
	}
	s.settles(t, func() error {
		if events := s.stored(); !slices.Contains(events, "oom a") {
			return fmt.Errorf("no event tells: %q", events)
		}
		return nil
	})
}

// TestOOMWhileNobodyWatched: what the kernel kills in a container while there is
// no supervisor is one event of the next one, and none of those after it.
func TestOOMWhileNobodyWatched(t *testing.T) {
	s := newStack(t)
	bundle := s.bundle("while read line </tmp/go; do ("+hungry+"); echo killed >/tmp/told; done", limited)
	var ends [2]*os.File
	for i, name := range []string{"go", "told"} {
		var err error
		if ends[i], err = makeFifo(filepath.Join(bundle, "rootfs/tmp", name)); err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
	}
	if _, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "a", BundlePath: bundle}); err != nil {
		t.Fatal(err)
	}
	starve := func() {
		t.Helper()
		fmt.Fprintln(ends[0], "go")
		ends[1].SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(ends[1], make([]byte, len("killed\n"))); err != nil {
			t.Fatal(err)
		}
	}
	ooms := func(want int) {
		t.Helper()
		s.settles(t, func() error {
			found := slices.DeleteFunc(s.stored(), func(event string) bool { return event != "oom a" })
			if len(found) != want {
				return fmt.Errorf("%d events tell of an OOM, want %d", len(found), want)
			}
			return nil
		})
	}
	starve()
	ooms(1)
	for want := range 2 {
		s.end(unix.SIGKILL)
		starve()
		s.start()
		ooms(2 + want)
	}
	s.end(unix.SIGKILL)
	s.start()
	// One that is recorded twice comes before this one.
	starve()
	ooms(4)
}
