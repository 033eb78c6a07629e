package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/engined/engined/integration/leftovers"
)

const stopTimeout = 20 * time.Second

// down removes the containers by the API and ends engined, then the supervisor,
// which outlives it. What is left after that is a fault: it is named, then
// taken away.
func down(p places) error {
	var failed error
	if pid, running := runningPid(p); running {
		failed = errors.Join(removeContainers(p), end(pid))
	}
	failed = errors.Join(failed, endRest(p, syscall.SIGTERM))
	leak := func(item leftovers.Item) bool {
		return item.Kind != leftovers.Directory && (item.Mentions(p.dir) || item.Mentions(p.execRoot) ||
			item.Name == p.bridge || strings.HasSuffix(item.Name, p.bridge))
	}
	if err := leftovers.Await(time.Now().Add(stopTimeout), leak); err != nil {
		failed = errors.Join(failed, err, endRest(p, syscall.SIGKILL))
		if err := unmount(p); err != nil { // never remove through a mount
			return errors.Join(failed, err)
		}
	}
	for _, path := range []string{p.execRoot, p.socket, p.dir} {
		if err := os.RemoveAll(path); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	if failed == nil {
		fmt.Println("stopped")
	}
	return failed
}

func removeContainers(p places) error {
	list, err := output(p, "ps", "-aq")
	if err != nil || list == "" {
		return err
	}
	_, err = output(p, append([]string{"rm", "-f"}, strings.Fields(list)...)...)
	return err
}

// end asks a process to end and waits for it.
func end(pid int) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("ending pid %d: %w", pid, err)
	}
	deadline := time.Now().Add(stopTimeout)
	for time.Now().Before(deadline) {
		if err := process.Signal(syscall.Signal(0)); err != nil {
			return nil //nolint:nilerr // that is the end
		}
		time.Sleep(10 * time.Millisecond) // not our child: nothing to wait on
	}
	return fmt.Errorf("pid %d did not end within %s", pid, stopTimeout)
}

// endRest signals the processes of the instance that are left.
func endRest(p places, signal syscall.Signal) error {
	items, err := leftovers.Look()
	if err != nil {
		return err
	}
	for _, item := range items {
		if item.Kind != leftovers.Process || !item.Mentions(p.dir) && !item.Mentions(p.execRoot) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Dir(item.Name)); err == nil {
			_ = syscall.Kill(pid, signal)
		}
	}
	return nil
}

func unmount(p places) error {
	items, err := leftovers.Look()
	if err != nil {
		return err
	}
	for i := len(items) - 1; i >= 0; i-- {
		point := items[i].Name
		if items[i].Kind != leftovers.Mount || !strings.HasPrefix(point, p.dir+"/") && !strings.HasPrefix(point, p.execRoot+"/") {
			continue
		}
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", point, err)
		}
	}
	return nil
}
