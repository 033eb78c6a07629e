package cgroup

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// updateV2 writes r's limits. The unified map comes last: it is what the
// caller wrote for this kernel, and wins.
func (c *Cgroup) updateV2(r *specs.LinuxResources) error {
	s := &setter{dir: c.location.V2}
	for _, set := range []func(*setter, *specs.LinuxResources){
		setPids, setMemoryV2, setCPUV2, setCpuset, setIO, setHugetlbV2, setRdma, refuseNetwork, setUnified,
	} {
		if set(s, r); s.err != nil {
			return s.err
		}
	}
	return nil
}

func setMemoryV2(s *setter, r *specs.LinuxResources) {
	m := r.Memory
	if m == nil {
		return
	}
	limit := value(m.Limit)
	swap, err := swapV2(limit, value(m.Swap))
	if err != nil {
		s.err = err
		return
	}
	if swap == "max" || swap == "0" { // without swap there is no file, and nothing to limit
		s.optional(func(s *setter) { s.set("memory.swap", "memory.swap.max", swap) })
	} else {
		s.text("memory.swap", "memory.swap.max", swap)
	}
	s.text("memory.limit", "memory.max", bytesV2(limit))
	s.text("memory.reservation", "memory.low", bytesV2(value(m.Reservation)))
}

// bytesV2 is the text for a number of bytes, "" for unset. -1 is no limit; the
// kernel refuses what else is negative.
func bytesV2(n int64) string {
	switch n {
	case 0:
		return ""
	case -1:
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// swapV2 converts the spec's limit of memory and swap together into v2's of
// swap alone. "" leaves it unset.
func swapV2(limit, swap int64) (string, error) {
	switch {
	case limit == -1 && swap == 0: // v1 has no limit on swap when memory has none
		return "max", nil
	case swap == 0:
		return "", nil
	case swap == -1:
		return "max", nil
	case swap < -1:
		return "", invalid("memory.swap", "invalid memory+swap value: %d", swap)
	case limit == 0 || limit == -1:
		return "", invalid("memory.swap", "unable to set swap limit without memory limit")
	case limit < 0:
		return "", invalid("memory.limit", "invalid memory value: %d", limit)
	case swap < limit:
		return "", invalid("memory.swap", "memory+swap limit should be >= memory limit")
	}
	return strconv.FormatInt(swap-limit, 10), nil
}

func setCPUV2(s *setter, r *specs.LinuxResources) {
	cpu := r.CPU
	if cpu == nil {
		return
	}
	if value(cpu.RealtimePeriod) != 0 || value(cpu.RealtimeRuntime) != 0 {
		s.err = invalid("cpu.realtimeRuntime", "cgroup v2 has no realtime limits")
		return
	}
	s.weight(cpu, "cpu.weight", weightV2(value(cpu.Shares)))
	burst := func(s *setter) {
		if cpu.Burst != nil {
			s.set("cpu.burst", "cpu.max.burst", strconv.FormatUint(*cpu.Burst, 10))
		}
	}
	s.retry(burst, func(s *setter) { s.text("cpu.quota", "cpu.max", maxV2(value(cpu.Quota), value(cpu.Period))) })
}

// maxV2 is cpu.max's text, "quota period". A period of 0 is the kernel's
// default, which must be written: a lone quota would keep the last period.
func maxV2(quota int64, period uint64) string {
	if quota == 0 && period == 0 {
		return ""
	}
	text := "max"
	if quota > 0 {
		text = strconv.FormatInt(quota, 10)
	}
	if period == 0 {
		period = 100000
	}
	return text + " " + strconv.FormatUint(period, 10)
}

// weightV2 maps v1's shares (2 to 262144, default 1024) to v2's weight (1 to
// 10000, default 100) along the curve through these three points that runc,
// crun and Kubernetes agreed on in 2025: a quadratic over log2(shares). The
// straight line used before gave 1024 shares a weight of 39.
func weightV2(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0)))
}

// setIO prefers BFQ's weight, whose range is blkio's; io.weight has its own.
func setIO(s *setter, r *specs.LinuxResources) {
	b := r.BlockIO
	if b == nil {
		return
	}
	if weight := value(b.Weight); weight != 0 {
		s.ioWeight("blockIO.weight", "", weight)
	}
	for _, d := range b.WeightDevice {
		if weight := value(d.Weight); weight != 0 {
			s.ioWeight("blockIO.weightDevice", fmt.Sprintf("%d:%d ", d.Major, d.Minor), weight)
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			s.set("blockIO."+t.field, "io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, t.v2, d.Rate))
		}
	}
}

func (s *setter) ioWeight(field, device string, weight uint16) {
	if s.err != nil {
		return
	}
	s.set(field, "io.bfq.weight", device+strconv.Itoa(int(weight)))
	if errors.Is(s.err, unix.ENOENT) {
		s.err = nil
		s.set(field, "io.weight", device+strconv.FormatUint(ioWeightV2(weight), 10))
	}
}

// ioWeightV2 maps blkio's 10 to 1000 to io.weight's 1 to 10000.
func ioWeightV2(weight uint16) uint64 {
	if weight == 0 {
		return 0
	}
	return 1 + (uint64(max(weight, 10))-10)*9999/990
}

func setHugetlbV2(s *setter, r *specs.LinuxResources) {
	for _, h := range r.HugepageLimits {
		limit := strconv.FormatUint(h.Limit, 10)
		s.set("hugepageLimits", "hugetlb."+h.Pagesize+".max", limit)
		s.optional(func(s *setter) { s.set("hugepageLimits", "hugetlb."+h.Pagesize+".rsvd.max", limit) })
	}
}

// refuseNetwork: v2 has no net_cls and net_prio; saying nothing would leave the
// caller's packets unmarked.
func refuseNetwork(s *setter, r *specs.LinuxResources) {
	if r.Network != nil && (value(r.Network.ClassID) != 0 || len(r.Network.Priorities) > 0) {
		s.err = invalid("network", "cgroup v2 has no net_cls and net_prio controllers")
	}
}

// setUnified writes the files that the spec names, in order of their names.
func setUnified(s *setter, r *specs.LinuxResources) {
	names := make([]string, 0, len(r.Unified))
	for name := range r.Unified {
		if strings.Contains(name, "/") || name == "." || name == ".." || name == "" {
			s.err = invalid("unified", "unified resource %q must be a file name (no slashes)", name)
			return
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for line := range strings.SplitSeq(strings.TrimSuffix(r.Unified[name], "\n"), "\n") {
			s.set("unified["+name+"]", name, line)
		}
		s.explainMissing(name)
	}
}

// explainMissing tells a controller that is not enabled from a typing error.
func (s *setter) explainMissing(file string) {
	if !errors.Is(s.err, unix.ENOENT) && !errors.Is(s.err, unix.EPERM) && !errors.Is(s.err, unix.EACCES) {
		return
	}
	controller, _, ok := strings.Cut(file, ".")
	if !ok {
		return
	}
	enabled, err := read(s.dir, "cgroup.controllers")
	if err == nil && controller != "cgroup" && !slices.Contains(strings.Fields(enabled), controller) {
		s.err = errdefs.FailedPrecondition.Errorf("unified resource %q can't be set: controller %q not available: %w", file, controller, s.err)
	}
}
