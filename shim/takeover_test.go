package shim_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	proto "github.com/engined/engined/proto/shim"
)

// careless is a runtime whose exec starts a process on the host, writes down for the
// test who that is, and then does with it what its last line says.
const careless = `#!/bin/sh
case " $* " in *" exec "*) ;; *) exec %[1]s "$@" ;; esac
for argument; do
	test "$last" != --pid-file || file=$argument
	last=$argument
done
sleep 1000 &
echo $! >sleeper
%[2]s
`

// TestAnExecdProcessThatCannotBeTakenOverIsKilled: who is told that an exec has
// failed finds nothing running, wherever after the runtime's success it failed.
func TestAnExecdProcessThatCannotBeTakenOverIsKilled(t *testing.T) {
	const named = `echo $! >"$file"`
	for name, c := range map[string]struct {
		after string // what the runtime does with the pid
		req   proto.Request
		file  string // in the place of which there is a directory
		want  string
	}{
		"no room for started.json": {named, proto.Request{}, proto.StartedFile + ".tmp", proto.StartedFile},
		"no terminal":              {named, proto.Request{Terminal: true}, "", "console socket"},
		"no pid file":              {"", proto.Request{}, "", "no pid"},
		"nonsense in the pid file": {`echo nonsense >"$file"`, proto.Request{}, "", "nonsense"},
		"a runtime that is killed": {"kill -9 $$", proto.Request{}, "", "killed by signal 9"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newCarelessBox(t, c.after)
			if c.file != "" {
				must(t, os.MkdirAll(filepath.Join(b.dir, "victim", c.file), 0o700))
			}
			if _, err := b.exec("victim", c.req, "/bin/sleep", "1000"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("exec: %v", err)
			}
			if ended := b.awaitSleeper(); !ended && c.after == named {
				t.Error("it was still there when the exec had failed")
			}
		})
	}
}

// newCarelessBox returns a container that runs, and whose runtime is careless.
func newCarelessBox(t *testing.T, after string) *box {
	t.Helper()
	path := filepath.Join(t.TempDir(), "careless")
	must(t, os.WriteFile(path, fmt.Appendf(nil, careless, runtimePath, after), 0o755))
	proper := runtimePath
	runtimePath = path
	defer func() { runtimePath = proper }()
	b := newBox(t, []string{"/bin/sleep", "1000"}, nil)
	b.start(proto.Request{})
	return b
}

// awaitSleeper waits for the end of what the careless runtime started. It reports
// whether that had come before.
func (b *box) awaitSleeper() (ended bool) {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "sleeper"))
	must(b.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	must(b.t, err)
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return true
	}
	must(b.t, err)
	defer unix.Close(fd)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5_000); n != 1 {
		b.t.Errorf("process %d is left running: %v", pid, err)
		must(b.t, unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
	}
	return false
}
