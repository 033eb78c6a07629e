package container

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// settleTimeout bounds how long an exit may be on its way.
const settleTimeout = 5 * time.Second

// settle waits for the exit of a command whose process is gone. The shim tells
// its exit, then ends the client's stream: a client asks for the exit code as
// soon as it sees that end, which may be before the exit has come through the
// supervisor to here.
func (e *command) settle(ctx context.Context) {
	e.mu.Lock()
	pid := e.pid
	e.mu.Unlock()
	if pid == 0 || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	select {
	case <-e.done:
	case <-ctx.Done():
	}
}
