package libcontainer

import (
	"strconv"
	"strings"
)

// maxNumber bounds a list of CPUs or memory nodes: the kernel's own limits are
// 8192 (NR_CPUS) and 1024 (MAX_NUMNODES).
const maxNumber = 8191

// numberMask turns a list as "0-3,7" of what into a mask for
// sched_setaffinity(2) or set_mempolicy(2); nil for an empty list.
func numberMask(field, what, list string) ([]byte, error) {
	if list == "" {
		return nil, nil
	}
	var mask []byte
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err != nil || err2 != nil || from > to || to > maxNumber {
			return nil, invalid(field, "expected a list of %s as 0-3,7, got %q", what, list)
		}
		for cpu := from; cpu <= to; cpu++ {
			for int(cpu/8) >= len(mask) {
				mask = append(mask, make([]byte, 8)...)
			}
			mask[cpu/8] |= 1 << (cpu % 8)
		}
	}
	return mask, nil
}
