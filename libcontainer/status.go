package libcontainer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Status is the state of a container as the OCI spec names it.
type Status string

// The statuses. A container without state.json has none.
const (
	Created Status = "created"
	Running Status = "running"
	Paused  Status = "paused"
	Stopped Status = "stopped"
)

// Status asks the kernel: init gone, a zombie or another process → stopped;
// cgroup frozen → paused; exec.fifo there → created; else running.
func (c *Container) Status() (Status, error) {
	alive, err := c.initAlive()
	if err != nil {
		return "", err
	}
	if !alive {
		return Stopped, nil
	}
	frozen, err := c.cgroup().Frozen()
	if err != nil {
		return "", fmt.Errorf("asking whether the container is frozen: %w", err)
	}
	if frozen {
		return Paused, nil
	}
	_, err = os.Lstat(filepath.Join(c.Dir(), FifoFile))
	switch {
	case err == nil:
		return Created, nil
	case errors.Is(err, os.ErrNotExist):
		return Running, nil
	}
	return "", err
}

// initAlive reports whether the process that create started still runs.
func (c *Container) initAlive() (bool, error) {
	if c.State.Pid <= 0 {
		return false, nil
	}
	state, start, err := processStat(c.State.Pid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return start == c.State.PidStart && state != 'Z' && state != 'X', nil
}

// ProcessStart returns when the process started, in clock ticks since boot:
// with it, a pid names one process for ever.
func ProcessStart(pid int) (uint64, error) {
	_, start, err := processStat(pid)
	return start, err
}

// processStat reads fields 3 and 22 of /proc/PID/stat, proc_pid_stat(5).
func processStat(pid int) (state byte, start uint64, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseStat(data)
}

// parseStat counts from the last parenthesis: field 2, the name, may hold any
// byte.
func parseStat(data []byte) (state byte, start uint64, err error) {
	malformed := fmt.Errorf("malformed /proc/PID/stat: %q", data)
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return 0, 0, malformed
	}
	fields := bytes.Fields(data[end+1:]) // fields[0] is field 3
	if len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, malformed
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0, 0, malformed
	}
	return fields[0][0], start, nil
}
