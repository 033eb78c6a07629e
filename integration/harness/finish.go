package harness

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/engined/engined/integration/leftovers"
)

// finish ends the instance, shows the logs if the test failed, and fails it if
// anything stayed behind. What stayed is then removed as far as it can be, so
// that the next test does not suffer for this one.
func (s *Stack) finish() {
	s.removeContainers()
	s.stopDaemons()
	leak := leftovers.Since(s.before, s.Dir)
	deadline := time.Now().Add(leakTimeout)
	err := leftovers.Await(deadline, func(item leftovers.Item) bool {
		return leak(item) && item.Kind != leftovers.Directory && !s.isAnothers(item)
	})
	if err != nil {
		s.t.Errorf("after the end of the instance: %v", err)
		s.sweep()
	}
	if s.t.Failed() {
		s.showLogs()
	}
}

// isAnothers is true of the bridge of an instance that another run of tests has,
// and of its firewall rules.
func (s *Stack) isAnothers(item leftovers.Item) bool {
	ofABridge := item.Kind == leftovers.Link || item.Kind == leftovers.Table
	return ofABridge && strings.Contains(item.Name, leftovers.Prefix) && !(s.options.Bridge && item.Mentions(s.Bridge))
}

// removeContainers removes all containers by the API, if engined still runs.
func (s *Stack) removeContainers() {
	if s.Engined == nil || !s.Engined.Running() {
		return
	}
	if err := RemoveAll(s.Client(s.t)); err != nil {
		s.t.Error(err)
	}
}

// RemoveAll removes all containers of an engine.
func RemoveAll(c *client.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return fmt.Errorf("listing what to remove: %w", err)
	}
	for _, container := range list.Items {
		if _, err := c.ContainerRemove(ctx, container.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			return fmt.Errorf("removing %s: %w", container.ID, err)
		}
	}
	return nil
}

func (s *Stack) stopDaemons() {
	for _, daemon := range []*Daemon{s.Engined, s.Supervisor} {
		if daemon == nil {
			continue
		}
		if err := daemon.Stop(); err != nil {
			s.t.Error(err)
		}
	}
	if s.options.OwnSupervisor {
		s.signalRest(syscall.SIGTERM) // it outlives engined, as it must
	}
}

// sweep ends processes and unmounts what a failed test left below Dir.
func (s *Stack) sweep() {
	s.signalRest(syscall.SIGKILL)
	unmountBelow(s.t, s.Dir)
}

// unmountBelow detaches what is mounted below dir, last first.
func unmountBelow(t testing.TB, dir string) {
	items, err := leftovers.Look()
	if err != nil {
		t.Error(err)
	}
	for i := len(items) - 1; i >= 0; i-- {
		if item := items[i]; item.Kind == leftovers.Mount && strings.HasPrefix(item.Name, dir+"/") {
			_ = syscall.Unmount(item.Name, syscall.MNT_DETACH)
		}
	}
}

// signalRest sends a signal to all processes that lead to the instance.
func (s *Stack) signalRest(signal syscall.Signal) {
	items, err := leftovers.Look()
	if err != nil {
		s.t.Error(err)
		return
	}
	for _, item := range items {
		if item.Kind != leftovers.Process || !item.Mentions(s.Dir) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Dir(item.Name)); err == nil {
			_ = syscall.Kill(pid, signal)
		}
	}
}

func (s *Stack) showLogs() {
	for _, daemon := range []*Daemon{s.Engined, s.Supervisor} {
		if daemon != nil {
			s.t.Log(daemon.tail())
		}
	}
	shims, _ := filepath.Glob(filepath.Join(s.StateDir(), "*", "*.log"))
	for _, log := range shims {
		s.t.Log((&Daemon{Name: filepath.Base(filepath.Dir(log)), Log: log}).tail())
	}
}
