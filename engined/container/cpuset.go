package container

import (
	"os"
	"strconv"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
)

// numbers is an item of a list as "0-2,5": both ends are in it.
type numbers struct{ from, to uint64 }

// checkCpuset refuses what is no list, and what the host does not have. What its
// cgroup leaves out of that is the runtime's to refuse.
func checkCpuset(h *apicontainer.HostConfig, invalid func(string, ...any) error) error {
	for _, list := range []struct{ text, name, things, online string }{
		{h.CpusetCpus, "cpus", "CPUs", "/sys/devices/system/cpu/online"},
		{h.CpusetMems, "mems", "memory nodes", "/sys/devices/system/node/online"},
	} {
		if list.text == "" {
			continue
		}
		wanted, ok := parseList(list.text)
		if !ok {
			return invalid("Invalid value %s for cpuset %s", list.text, list.name)
		}
		text, err := os.ReadFile(list.online)
		if err != nil {
			continue // a kernel without memory nodes
		}
		online := strings.TrimSpace(string(text))
		if there, ok := parseList(online); ok && !within(wanted, there) {
			return invalid("Requested %s are not available - requested %s, available: %s", list.things, list.text, online)
		}
	}
	return nil
}

// parseList reads a list of numbers and ranges.
func parseList(text string) (list []numbers, ok bool) {
	for item := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(item, "-")
		from, err := strconv.ParseUint(low, 10, 16)
		if err != nil {
			return nil, false
		}
		to := from
		if isRange {
			if to, err = strconv.ParseUint(high, 10, 16); err != nil || to < from {
				return nil, false
			}
		}
		list = append(list, numbers{from, to})
	}
	return list, true
}

// within reports whether all wanted numbers are there, of which there are few.
func within(wanted, there []numbers) bool {
	has := make(map[uint64]bool)
	for _, item := range there {
		for n := item.from; n <= item.to; n++ {
			has[n] = true
		}
	}
	for _, item := range wanted {
		for n := item.from; n <= item.to; n++ {
			if !has[n] {
				return false
			}
		}
	}
	return true
}
