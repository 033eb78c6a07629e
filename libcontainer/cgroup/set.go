package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// SetButCPU checks the limits of r, which may be nil, and writes them and r's device
// rules, but for what is left to SetCPU: both together are for create. See Update for
// a container that runs.
func (c *Cgroup) SetButCPU(r *specs.LinuxResources) error {
	if r == nil {
		r = &specs.LinuxResources{}
	}
	if err := c.setDevices(r.Devices); err != nil {
		return err
	}
	return c.setLimits(r, func(controller string) bool { return !isCPU(controller) })
}

// SetCPU writes v1's cpuset and cpu, for which the kernel looks at all the other
// cgroups there are (0.02 ms each beside none, 0.15 beside 500): a start can do it
// beside what the container's process does, if that joins the cpuset afterwards.
func (c *Cgroup) SetCPU(r *specs.LinuxResources) error {
	if c.unified() {
		return nil
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	if dir := c.dirOf("cpuset"); dir != "" {
		if err := inheritCpuset(dir, r, false); err != nil {
			return err
		}
	}
	return c.updateV1(r, isCPU)
}

func isCPU(controller string) bool { return controller == "cpuset" || controller == "cpu" }

// Update writes the limits of r, to systemd too if it made the cgroup, and
// leaves devices alone.
func (c *Cgroup) Update(ctx context.Context, r *specs.LinuxResources) error {
	if err := validate(r); err != nil {
		return err
	}
	if err := c.checkMemory(r.Memory); err != nil { // before systemd sets it
		return err
	}
	if err := c.updateUnit(ctx, r); err != nil {
		return err
	}
	return c.setLimits(r, func(string) bool { return true })
}

// setLimits writes what r says: on v1 for the controllers wanted.
func (c *Cgroup) setLimits(r *specs.LinuxResources, wanted func(controller string) bool) error {
	if err := validate(r); err != nil {
		return err
	}
	if c.unified() {
		return c.updateV2(r)
	}
	return c.updateV1(r, wanted)
}

// checkMemory refuses limits below what is in use now, which would call the OOM killer,
// if the spec wants that. The texts are runc's.
func (c *Cgroup) checkMemory(m *specs.LinuxMemory) error {
	if m == nil || m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate {
		return nil
	}
	dir, file := c.dirOf("memory"), "memory.usage_in_bytes"
	if c.unified() {
		dir, file = c.location.V2, "memory.current"
	}
	if dir == "" {
		return nil // which who sets the limit says
	}
	usage, err := readNumber(dir, file)
	if err != nil {
		return err
	}
	if swap := value(m.Swap); swap > 0 && uint64(swap) <= usage {
		return errdefs.FailedPrecondition.Errorf("cannot set linux.resources.memory.swap: rejecting memory+swap limit %d <= usage %d", swap, usage)
	}
	if limit := value(m.Limit); limit > 0 && uint64(limit) <= usage {
		return errdefs.FailedPrecondition.Errorf("cannot set linux.resources.memory.limit: rejecting memory limit %d <= usage %d", limit, usage)
	}
	return nil
}

// validate refuses what the kernel would silently clamp or accept by accident.
func validate(r *specs.LinuxResources) error {
	if m := r.Memory; m != nil {
		if limit := value(m.Limit); limit < -1 {
			return invalid("memory.limit", "invalid memory value: %d (-1 is no limit)", limit)
		}
		if m.Swappiness != nil && *m.Swappiness > 100 && int64(*m.Swappiness) != -1 {
			return invalid("memory.swappiness", "invalid memory swappiness value: %d (valid range is 0-100)", *m.Swappiness)
		}
	}
	if cpu := r.CPU; cpu != nil && cpu.Shares != nil && *cpu.Shares != 0 {
		if *cpu.Shares < 2 {
			return invalid("cpu.shares", "the minimum allowed cpu-shares is 2")
		}
		if *cpu.Shares > 262144 {
			return invalid("cpu.shares", "the maximum allowed cpu-shares is 262144")
		}
	}
	for i, h := range r.HugepageLimits {
		if !isPageSize(h.Pagesize) {
			return invalid(fmt.Sprintf("hugepageLimits[%d].pageSize", i), "%q is not a size as 2MB", h.Pagesize)
		}
	}
	for name := range r.Rdma {
		if strings.ContainsAny(name, " \n") || name == "" {
			return invalid("rdma", "%q is not a device name", name)
		}
	}
	return nil
}

// isPageSize accepts the kernel's names: digits, then KB, MB or GB. The name
// becomes part of a file name.
func isPageSize(s string) bool {
	digits := strings.TrimRight(s, "KMGTB")
	suffix := s[len(digits):]
	_, err := strconv.ParseUint(digits, 10, 64)
	return err == nil && len(suffix) == 2 && suffix[1] == 'B'
}

// value dereferences an optional number; absent and zero both mean unset.
func value[T int64 | uint64 | uint16 | uint32](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}

// setter writes the files of one directory and keeps the first error.
type setter struct {
	dir        string
	controller string
	err        error
}

// set writes a file for a field of the spec.
func (s *setter) set(field, file, text string) {
	if s.err != nil {
		return
	}
	if s.dir == "" {
		s.err = unavailable(field, s.controller)
		return
	}
	if err := write(s.dir, file, text); err != nil {
		s.err = failed(field, file, text, err)
	}
}

// number sets a file unless n is zero.
func (s *setter) number(field, file string, n int64) {
	if n != 0 {
		s.set(field, file, strconv.FormatInt(n, 10))
	}
}

// unsigned sets a file unless n is zero.
func (s *setter) unsigned(field, file string, n uint64) {
	if n != 0 {
		s.set(field, file, strconv.FormatUint(n, 10))
	}
}

// text sets a file unless text is empty.
func (s *setter) text(field, file, text string) {
	if text != "" {
		s.set(field, file, text)
	}
}

// retry runs two steps in the order in which the kernel accepts them: limits
// that bound each other must be raised from the outside and lowered from the
// inside, and trying costs less than reading where they are.
func (s *setter) retry(first, second func(*setter)) {
	if s.err != nil {
		return
	}
	first(s)
	if errors.Is(s.err, unix.EINVAL) {
		s.err = nil
		second(s)
		first(s)
		return
	}
	second(s)
}

// optional drops the error of a file that the kernel does not have.
func (s *setter) optional(step func(*setter)) {
	if s.err != nil {
		return
	}
	step(s)
	if errors.Is(s.err, unix.ENOENT) && s.dir != "" {
		s.err = nil
	}
}

// each formats per-device lines, "major:minor value".
func throttleLine(d specs.LinuxThrottleDevice) string {
	return fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate)
}
