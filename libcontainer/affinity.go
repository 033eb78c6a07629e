package libcontainer

import (
	"strconv"
	"strings"
)

// maxCPU bounds a list of CPUs: the kernel's own limit is 8192 (NR_CPUS).
const maxCPU = 8191

// cpuMask turns a list as "0-3,7" into a mask for sched_setaffinity(2); nil
// for an empty list.
func cpuMask(field, list string) ([]byte, error) {
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
		if err != nil || err2 != nil || from > to || to > maxCPU {
			return nil, invalid(field, "expected a list of CPUs as 0-3,7, got %q", list)
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
