package cgroup

import (
	"strconv"
	"strings"
)

// Details are counters and settings beyond Stats, which is read often. Fields of
// what is not there are zero.
type Details struct {
	PerCPUKernel, PerCPUUser []uint64 // nanoseconds, v1 only
	Cpuset                   Cpuset   // v1 only

	CPU, Memory, IO *Pressure // v2 only
}

// Cpuset is v1's, its flags by the names of their files.
type Cpuset struct {
	CPUs, Mems []uint16
	Flags      map[string]int64
}

// Pressure is how long tasks waited for a resource, psi.rst: some of them, and
// all at once.
type Pressure struct {
	Some PressureTimes `json:"some"`
	Full PressureTimes `json:"full"`
}

// PressureTimes are shares in percent over so many seconds, and microseconds.
type PressureTimes struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// CpusetFlags are the files of Cpuset.Flags.
var CpusetFlags = []string{
	"cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
	"memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
}

// Details reads them.
func (c *Cgroup) Details() (Details, error) {
	var d Details
	r := &reader{}
	if c.unified() {
		r.dir = c.location.V2
		d.CPU, d.Memory, d.IO = r.pressure("cpu"), r.pressure("memory"), r.pressure("io")
		return d, r.err
	}
	r.dir = c.dirOf("cpuacct")
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

// pressure reads, nil if the kernel does not count it:
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
func (r *reader) pressure(resource string) *Pressure {
	text := r.text(resource + ".pressure")
	if text == "" {
		return nil
	}
	p := &Pressure{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		to := &p.Some
		if len(fields) > 0 && fields[0] == "full" {
			to = &p.Full
		}
		for _, field := range fields {
			name, value, _ := strings.Cut(field, "=")
			n, _ := strconv.ParseFloat(value, 64)
			switch name {
			case "avg10":
				to.Avg10 = n
			case "avg60":
				to.Avg60 = n
			case "avg300":
				to.Avg300 = n
			case "total":
				to.Total, _ = strconv.ParseUint(value, 10, 64)
			}
		}
	}
	return p
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
