package leftovers

import (
	"fmt"
	"strings"
	"time"
)

// Await looks until nothing is left that leak calls a leak, and returns an
// error that lists the rest when the deadline passes. Teardown goes on after
// the answer to a request (the kernel's RCU), and nothing announces its end to
// a stranger: looking again is all there is.
//
// A cgroup that was not there at the first look is another instance's: they have
// their parent in common, and who waits here makes none any more.
func Await(deadline time.Time, leak func(Item) bool) error {
	var there map[string]bool
	for {
		items, err := Look()
		if err != nil {
			return err
		}
		if there == nil {
			there = names(items, Cgroup)
		}
		left := filter(items, func(item Item) bool { return leak(item) && (item.Kind != Cgroup || there[item.Name]) })
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("left over:\n\t%s", join(left))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// names are those of the items of a kind.
func names(items []Item, kind string) map[string]bool {
	found := map[string]bool{}
	for _, item := range items {
		if item.Kind == kind {
			found[item.Name] = true
		}
	}
	return found
}

// Since returns a leak function for Await: what was not there before and is
// not held by a process that ours says no to. Items that name one of dirs are
// leaks in any case.
func Since(before []Item, dirs ...string) func(Item) bool {
	known := map[string]bool{}
	for _, item := range before {
		known[item.Kind+item.Name] = true
	}
	return func(item Item) bool {
		for _, dir := range dirs {
			if item.Mentions(dir) {
				return true
			}
		}
		if known[item.Kind+item.Name] {
			return false
		}
		switch item.Kind {
		case Cgroup:
			return !heldByOthers(item.Detail, dirs)
		case Link: // a veth without its bridge, or a bridge of the tests
			return item.Detail == "" && !ourName.MatchString(item.Name) || strings.HasPrefix(item.Name, Prefix)
		case Table, Netns:
			return strings.Contains(item.Name, Prefix)
		default: // names a directory, and not one of ours
			return false
		}
	}
}

// heldByOthers reports whether pids holds a process none of whose traces lead
// to dirs: another engine's container.
func heldByOthers(pids string, dirs []string) bool {
	for _, word := range strings.Fields(pids) {
		var pid int
		if _, err := fmt.Sscan(word, &pid); err != nil {
			continue
		}
		trace := mountTrace(pid, "")
		for _, dir := range dirs {
			if mentions(trace, dir) {
				return false
			}
		}
		return true
	}
	return false
}

func filter(items []Item, keep func(Item) bool) []Item {
	var kept []Item
	for _, item := range items {
		if keep(item) {
			kept = append(kept, item)
		}
	}
	return kept
}

func join(items []Item) string {
	var lines []string
	for _, item := range items {
		lines = append(lines, item.String())
	}
	return strings.Join(lines, "\n\t")
}
