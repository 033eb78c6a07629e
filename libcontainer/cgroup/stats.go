package cgroup

import (
	"errors"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Unlimited is a limit that is not set, on v1 and v2.
const Unlimited = math.MaxUint64

// Stats is what the kernel counted. Fields of a controller that is not there
// are zero.
type Stats struct {
	CPU     CPUStats                `json:"cpu"`
	Memory  MemoryStats             `json:"memory"`
	Pids    PidsStats               `json:"pids"`
	IO      IOStats                 `json:"io"`
	Hugetlb map[string]HugetlbStats `json:"hugetlb,omitempty"` // by page size, as 2MB
}

// CPUStats are times in nanoseconds and counts of periods.
type CPUStats struct {
	Usage            uint64   `json:"usage"`
	User             uint64   `json:"user"`
	System           uint64   `json:"system"`
	PerCPU           []uint64 `json:"per_cpu,omitempty"` // v1 only
	Periods          uint64   `json:"periods"`
	ThrottledPeriods uint64   `json:"throttled_periods"`
	Throttled        uint64   `json:"throttled"`

	Pressure *Pressure `json:"pressure,omitempty"` // v2 only, as those of memory and IO
}

// MemoryUse is in bytes. Peak and Failures are 0 where the kernel does not count them.
type MemoryUse struct {
	Usage    uint64 `json:"usage"`
	Peak     uint64 `json:"peak"`
	Limit    uint64 `json:"limit"` // Unlimited if none
	Failures uint64 `json:"failures"`
}

// MemoryStats holds memory, memory and swap together (v1) or swap alone (v2),
// and memory.stat as the kernel names it.
type MemoryStats struct {
	MemoryUse
	Swap     MemoryUse         `json:"swap"`
	Kernel   MemoryUse         `json:"kernel"`     // v1 only
	TCP      MemoryUse         `json:"kernel_tcp"` // v1 only
	Cache    uint64            `json:"cache"`
	OOMKills uint64            `json:"oom_kills"`
	Raw      map[string]uint64 `json:"raw,omitempty"`
	Pressure *Pressure         `json:"pressure,omitempty"`
}

// PidsStats counts processes and threads.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"` // Unlimited if none
}

// IOEntry is one device's count for one operation: Read, Write, Discard...
type IOEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// IOStats lists bytes moved and operations done.
type IOStats struct {
	Bytes      []IOEntry `json:"bytes,omitempty"`
	Operations []IOEntry `json:"operations,omitempty"`
	Pressure   *Pressure `json:"pressure,omitempty"`
}

// HugetlbStats are in bytes.
type HugetlbStats struct {
	Usage    uint64 `json:"usage"`
	Peak     uint64 `json:"peak"` // v1 only
	Failures uint64 `json:"failures"`
	Limit    uint64 `json:"limit"` // Unlimited if none
}

// Stats reads the counters.
func (c *Cgroup) Stats() (Stats, error) {
	r := &reader{}
	var stats Stats
	if c.unified() {
		r.dir = c.location.V2
		r.statsV2(&stats)
	} else {
		c.statsV1(r, &stats)
	}
	return stats, r.err
}

// reader reads files of one directory, takes those that are not there for
// zero, and keeps the first error.
type reader struct {
	dir string
	err error
}

func (r *reader) text(file string) string {
	if r.dir == "" || r.err != nil {
		return ""
	}
	text, err := read(r.dir, file)
	if err != nil && !gone(err) && !errors.Is(err, unix.EOPNOTSUPP) {
		r.err = &os.PathError{Op: "read", Path: r.dir + "/" + file, Err: err}
	}
	return text
}

func (r *reader) number(file string) uint64 {
	text := r.text(file)
	if text == "" {
		return 0
	}
	n, err := parseNumber(text)
	if err != nil {
		r.err = &os.PathError{Op: "read", Path: r.dir + "/" + file, Err: err}
	}
	return n
}

func (r *reader) flat(file string) map[string]uint64 { return parseFlat(r.text(file)) }

// tick is the unit of cpuacct.stat: USER_HZ is 100 on every architecture Linux
// runs Go on.
const tick = 1e9 / 100

func (c *Cgroup) statsV1(r *reader, stats *Stats) {
	r.dir = c.dirOf("cpuacct")
	stats.CPU.Usage = r.number("cpuacct.usage")
	times := r.flat("cpuacct.stat")
	stats.CPU.User, stats.CPU.System = times["user"]*tick, times["system"]*tick
	for field := range strings.FieldsSeq(r.text("cpuacct.usage_percpu")) {
		if n, err := strconv.ParseUint(field, 10, 64); err == nil {
			stats.CPU.PerCPU = append(stats.CPU.PerCPU, n)
		}
	}
	r.dir = c.dirOf("cpu")
	throttling := r.flat("cpu.stat")
	stats.CPU.Periods, stats.CPU.ThrottledPeriods = throttling["nr_periods"], throttling["nr_throttled"]
	stats.CPU.Throttled = throttling["throttled_time"]

	r.dir = c.dirOf("memory")
	r.memoryV1(&stats.Memory)
	r.dir = c.dirOf("pids")
	stats.Pids = PidsStats{Current: r.number("pids.current"), Limit: r.number("pids.max")}
	r.dir = c.dirOf("blkio")
	r.blkio(&stats.IO)
	r.dir = c.dirOf("hugetlb")
	stats.Hugetlb = r.hugetlb(func(size string) HugetlbStats {
		prefix := "hugetlb." + size
		return HugetlbStats{
			Usage: r.number(prefix + ".usage_in_bytes"), Peak: r.number(prefix + ".max_usage_in_bytes"),
			Failures: r.number(prefix + ".failcnt"), Limit: limitV1(r.number(prefix + ".limit_in_bytes")),
		}
	})
}

func (r *reader) memoryV1(m *MemoryStats) {
	use := func(prefix string) MemoryUse {
		return MemoryUse{
			Usage: r.number(prefix + "usage_in_bytes"), Peak: r.number(prefix + "max_usage_in_bytes"),
			Limit: limitV1(r.number(prefix + "limit_in_bytes")), Failures: r.number(prefix + "failcnt"),
		}
	}
	m.MemoryUse = use("memory.")
	m.Swap = use("memory.memsw.")
	m.Kernel = use("memory.kmem.")
	m.TCP = use("memory.kmem.tcp.")
	m.Raw = r.flat("memory.stat")
	m.Cache = m.Raw["cache"]
	m.OOMKills = r.flat("memory.oom_control")["oom_kill"]
}

// limitV1 turns v1's "no limit", the largest number of whole pages, into ours.
func limitV1(n uint64) uint64 {
	if n >= math.MaxInt64-0xffff {
		return Unlimited
	}
	return n
}

// blkio prefers the counters that include children, and any scheduler's over
// the throttle layer's.
func (r *reader) blkio(io *IOStats) {
	for _, prefix := range []string{"blkio.bfq.", "blkio.", "blkio.throttle."} {
		io.Bytes = parseBlkio(r.text(prefix + "io_service_bytes_recursive"))
		io.Operations = parseBlkio(r.text(prefix + "io_serviced_recursive"))
		if len(io.Bytes) > 0 {
			return
		}
	}
}

// hugetlb asks for each page size that the kernel has.
func (r *reader) hugetlb(one func(size string) HugetlbStats) map[string]HugetlbStats {
	if r.dir == "" || r.err != nil {
		return nil
	}
	var stats map[string]HugetlbStats
	for _, size := range pageSizes() {
		if unix.Access(r.dir+"/hugetlb."+size+".events", unix.F_OK) != nil && unix.Access(r.dir+"/hugetlb."+size+".failcnt", unix.F_OK) != nil {
			continue
		}
		if stats == nil {
			stats = make(map[string]HugetlbStats)
		}
		stats[size] = one(size)
	}
	return stats
}

// pageSizes names the kernel's huge page sizes as the hugetlb controller does.
func pageSizes() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var sizes []string
	for _, entry := range entries {
		kilobytes, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(entry.Name(), "hugepages-"), "kB"), 10, 64)
		if err == nil {
			sizes = append(sizes, sizeName(kilobytes))
		}
	}
	return sizes
}

func sizeName(kilobytes uint64) string {
	switch {
	case kilobytes >= 1<<20:
		return strconv.FormatUint(kilobytes>>20, 10) + "GB"
	case kilobytes >= 1<<10:
		return strconv.FormatUint(kilobytes>>10, 10) + "MB"
	}
	return strconv.FormatUint(kilobytes, 10) + "KB"
}

func (r *reader) statsV2(stats *Stats) {
	const microsecond = 1000
	cpu := r.flat("cpu.stat")
	stats.CPU = CPUStats{
		Usage: cpu["usage_usec"] * microsecond, User: cpu["user_usec"] * microsecond, System: cpu["system_usec"] * microsecond,
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], Throttled: cpu["throttled_usec"] * microsecond,
	}
	stats.CPU.Pressure = parsePressure(r.text("cpu.pressure"))
	m := &stats.Memory
	m.Pressure = parsePressure(r.text("memory.pressure"))
	m.Raw = r.flat("memory.stat")
	m.Cache = m.Raw["file"]
	events := r.flat("memory.events")
	m.OOMKills = events["oom_kill"]
	m.MemoryUse = MemoryUse{r.number("memory.current"), r.number("memory.peak"), r.number("memory.max"), events["max"]}
	m.Swap = MemoryUse{r.number("memory.swap.current"), r.number("memory.swap.peak"), r.number("memory.swap.max"), r.flat("memory.swap.events")["fail"]}
	stats.Pids = PidsStats{Current: r.number("pids.current"), Limit: r.number("pids.max")}
	stats.IO.Bytes, stats.IO.Operations = parseIO(r.text("io.stat"))
	stats.IO.Pressure = parsePressure(r.text("io.pressure"))
	stats.Hugetlb = r.hugetlb(func(size string) HugetlbStats {
		prefix := "hugetlb." + size
		return HugetlbStats{Usage: r.number(prefix + ".current"), Failures: r.flat(prefix + ".events")["max"], Limit: r.number(prefix + ".max")}
	})
}
