package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/engined/engined/integration/leftovers"
)

// instance is an engined that runs, as its command line and API show it.
type instance struct {
	pid        int
	host       string
	dirs       []string        // its data root, exec root and socket
	bridge     string          // link name
	daemons    map[string]bool // "pid/start" of engined and its supervisor
	containers map[string]bool // ids it lists
}

func (i *instance) String() string {
	return fmt.Sprintf("running: engined %d at %s with %d containers", i.pid, i.host, len(i.containers))
}

var containerID = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// owns reports whether the instance accounts for the item.
func (i *instance) owns(item leftovers.Item) bool {
	if ids := containerID.FindAllString(item.Name+" "+item.Detail, -1); len(ids) > 0 {
		for _, id := range ids { // layers have such names too: one that is listed is enough
			if i.containers[id] {
				return true
			}
		}
		return false
	}
	switch item.Kind {
	case leftovers.Process:
		return i.daemons[item.Name] || i.mentioned(item) && len(i.containers) > 0
	case leftovers.Link:
		return item.Name == i.bridge || item.Detail == "master "+i.bridge && len(i.containers) > 0
	case leftovers.Table:
		return strings.HasSuffix(item.Name, i.bridge)
	}
	return i.mentioned(item)
}

func (i *instance) mentioned(item leftovers.Item) bool {
	for _, dir := range i.dirs {
		if item.Mentions(dir) || strings.HasPrefix(dir, item.Name+"/") {
			return true
		}
	}
	return false
}

// running finds the instances by their processes and asks each for its
// containers.
func running(ctx context.Context) ([]*instance, error) {
	all, err := leftovers.Processes()
	if err != nil {
		return nil, err
	}
	var found []*instance
	for _, proc := range all {
		if !proc.Ours() || filepath.Base(proc.Exe) != "engined" || !daemon(proc.Command) {
			continue
		}
		i := fromCommand(proc)
		for _, child := range all {
			if child.Parent == proc.Pid || i.supervises(child) {
				i.daemons[fmt.Sprintf("%d/%d", child.Pid, child.Start)] = true
			}
		}
		if err := i.list(ctx); err != nil {
			return nil, fmt.Errorf("asking engined %d at %s: %w", proc.Pid, i.host, err)
		}
		found = append(found, i)
	}
	sort.Slice(found, func(a, b int) bool { return found[a].pid < found[b].pid })
	return found, nil
}

// daemon tells the daemon from engined's own command line (`engined ps`).
func daemon(command string) bool {
	words := strings.Fields(command)
	return len(words) == 1 || strings.HasPrefix(words[1], "-")
}

// fromCommand reads the flags; what is not given has its default.
func fromCommand(proc leftovers.Proc) *instance {
	flag := func(name, otherwise string) string {
		words := strings.Fields(strings.ReplaceAll(proc.Command, "=", " "))
		for n, word := range words {
			if strings.TrimLeft(word, "-") == name && n+1 < len(words) {
				return words[n+1]
			}
		}
		return otherwise
	}
	i := &instance{pid: proc.Pid, host: flag("H", "unix:///run/engined.sock"), bridge: flag("bridge", "engined0"),
		daemons: map[string]bool{fmt.Sprintf("%d/%d", proc.Pid, proc.Start): true}, containers: map[string]bool{}}
	i.dirs = []string{flag("data-root", "/var/lib/engined"), flag("exec-root", "/run/engined"),
		strings.TrimPrefix(i.host, "unix://"), flag("pidfile", "/run/engined.pid"), strings.TrimPrefix(flag("supervisor", "unix:///run/engined/supervisor.sock"), "unix://")}
	return i
}

// supervises reports whether proc is the supervisor that the instance uses.
func (i *instance) supervises(proc leftovers.Proc) bool {
	if !proc.Ours() || filepath.Base(proc.Exe) != "supervisor" {
		return false
	}
	for _, dir := range i.dirs {
		if strings.Contains(proc.Command, dir) {
			return true
		}
	}
	return false
}

func (i *instance) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := client.New(client.WithHost(i.host))
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return err
	}
	for _, container := range list.Items {
		i.containers[container.ID] = true
	}
	return nil
}
