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
	stat, err := readStat(c.State.Pid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return stat.start == c.State.PidStart && stat.state != 'Z' && stat.state != 'X', nil
}

// ProcessStart returns when the process started, in clock ticks since boot:
// with it, a pid names one process for ever.
func ProcessStart(pid int) (uint64, error) {
	stat, err := readStat(pid)
	return stat.start, err
}

// processStat is what we want of /proc/PID/stat, proc_pid_stat(5).
type processStat struct {
	name  string             // field 2: of the program, unless the process chose another
	state byte               // 3
	flags uint64             // 9: PF_*, linux/sched.h
	start uint64             // 22
	exit  syscall.WaitStatus // 52: of a process that ends, 0 for who may not trace it
}

func readStat(pid int) (processStat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return processStat{}, err
	}
	return parseStat(data)
}

// parseStat counts from the last parenthesis: the name may hold any byte.
func parseStat(data []byte) (stat processStat, err error) {
	begin, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if begin < 0 || end < begin {
		return stat, fmt.Errorf("malformed /proc/PID/stat: %q", data)
	}
	fields := bytes.Fields(data[end+1:]) // fields[0] is field 3
	if len(fields) < 50 || len(fields[0]) != 1 {
		return stat, fmt.Errorf("malformed /proc/PID/stat: %q", data)
	}
	var exit uint64
	for _, number := range []struct {
		field int
		to    *uint64
	}{{9, &stat.flags}, {22, &stat.start}, {52, &exit}} {
		if *number.to, err = strconv.ParseUint(string(fields[number.field-3]), 10, 64); err != nil {
			return stat, fmt.Errorf("malformed field %d of /proc/PID/stat: %q", number.field, data)
		}
	}
	stat.name, stat.state, stat.exit = string(data[begin+1:end]), fields[0][0], syscall.WaitStatus(exit)
	return stat, nil
}
