package cgroup

import (
	"strconv"
	"strings"
)

// Details are v1's counters and settings beyond Stats, which is read often. Fields
// of what is not there are zero.
type Details struct {
	PerCPUKernel, PerCPUUser []uint64 // nanoseconds
	Cpuset                   Cpuset
}

// Cpuset is v1's, its flags by the names of their files.
type Cpuset struct {
	CPUs, Mems []uint16
	Flags      map[string]int64
}

// CpusetFlags are the files of Cpuset.Flags.
var CpusetFlags = []string{
	"cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
	"memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
}

// Details reads them.
func (c *Cgroup) Details() (Details, error) {
	var d Details
	if c.unified() {
		return d, nil
	}
	r := &reader{dir: c.dirOf("cpuacct")}
	for line := range strings.Lines(r.text("cpuacct.usage_all")) {
		if times := numbers(strings.Fields(line)); len(times) == 3 { // not so the headings
			d.PerCPUUser, d.PerCPUKernel = append(d.PerCPUUser, times[1]), append(d.PerCPUKernel, times[2])
		}
	}
	r.dir = c.dirOf("cpuset")
	d.Cpuset = Cpuset{CPUs: parseList(r.text("cpuset.cpus")), Mems: parseList(r.text("cpuset.mems")), Flags: make(map[string]int64)}
	for _, name := range CpusetFlags {
		if n, err := strconv.ParseInt(strings.TrimSpace(r.text("cpuset."+name)), 10, 64); err == nil {
			d.Cpuset.Flags[name] = n
		}
	}
	return d, r.err
}

func numbers(fields []string) []uint64 {
	var list []uint64
	for _, field := range fields {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return nil
		}
		list = append(list, n)
	}
	return list
}

// parseList reads 0-2,7.
func parseList(text string) []uint16 {
	var list []uint16
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 15)
		to, err2 := strconv.ParseUint(last, 10, 15)
		if err != nil || err2 != nil {
			return list
		}
		for n := from; n <= to; n++ {
			list = append(list, uint16(n))
		}
	}
	return list
}
