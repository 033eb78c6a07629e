package cgroup

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/dbus"
	"github.com/engined/engined/proto/errdefs"
)

// property is one of a unit's, (sv).
func property(name string, value any) dbus.Struct {
	return dbus.Struct{name, dbus.Variant{Value: value}}
}

func propertyArray(list []dbus.Struct) dbus.Array {
	array := dbus.Array{Element: "(sv)"}
	for _, one := range list {
		array.Items = append(array.Items, one)
	}
	return array
}

// properties are all that a new unit gets: what it is, its limits, and what
// annotations say.
func (u *unit) properties(ctx context.Context, m *systemd, layout Layout, spec *specs.Spec, pid int) ([]dbus.Struct, error) {
	list := []dbus.Struct{property("Description", "libcontainer container "+u.title)}
	if u.isSlice() {
		list = append(list, property("Wants", dbus.Strings(u.slice)))
	} else {
		list = append(list,
			property("Slice", u.slice),
			property("Delegate", true), // the cgroups below are the container's
			property("PIDs", dbus.Array{Element: "u", Items: []any{uint32(pid)}}))
	}
	io := "IOAccounting"
	if layout.Mode != V2 {
		io = "BlockIOAccounting"
	}
	for _, name := range []string{"MemoryAccounting", "CPUAccounting", io, "TasksAccounting"} {
		list = append(list, property(name, true))
	}
	// Else the scope would be stopped before everything else at shutdown.
	list = append(list, property("DefaultDependencies", false))
	r := spec.Linux.Resources
	if r == nil {
		r = &specs.LinuxResources{}
	}
	devices, err := deviceProperties(r.Devices)
	if err != nil {
		return nil, err
	}
	limits, err := resourceProperties(ctx, m, layout.Mode == V2, r)
	if err != nil {
		return nil, err
	}
	own, err := annotated(spec.Annotations)
	return slices.Concat(list, devices, limits, own), err
}

// AnnotationPrefix starts the annotations that are properties:
//
//	org.systemd.property.TimeoutStopUSec: "uint64 10000000"
const AnnotationPrefix = "org.systemd.property."

// annotated reads properties from annotations. A name that ends in Sec, of a
// time in seconds as unit files have it, becomes the bus's in microseconds.
func annotated(annotations map[string]string) ([]dbus.Struct, error) {
	var list []dbus.Struct
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, AnnotationPrefix)
		if !ok {
			continue
		}
		value, err := dbus.Parse(annotations[key])
		if err == nil {
			err = checkPropertyName(name)
		}
		if err == nil {
			name, value, err = inMicroseconds(name, value)
		}
		if err != nil {
			return nil, errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "annotations["+key+"]", "annotation %s=%s: %w", key, annotations[key], err)
		}
		list = append(list, property(name, value))
	}
	return list, nil
}

func checkPropertyName(name string) error {
	letters := strings.IndexFunc(name, func(r rune) bool { return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') }) < 0
	if len(name) < 3 || !letters {
		return fmt.Errorf("invalid property name %q: expected three letters or more", name)
	}
	return nil
}

func inMicroseconds(name string, value any) (string, any, error) {
	stem, ok := strings.CutSuffix(name, "Sec")
	if !ok || stem == "" || stem[len(stem)-1] < 'a' || stem[len(stem)-1] > 'z' {
		return name, value, nil
	}
	var seconds float64
	switch n := value.(type) {
	case uint32:
		seconds = float64(n)
	case uint64:
		seconds = float64(n)
	case int32:
		seconds = float64(n)
	case int64:
		seconds = float64(n)
	case float64:
		seconds = n
	default:
		return "", nil, fmt.Errorf("expected a number of seconds")
	}
	if seconds < 0 || seconds > math.MaxUint64/1e6 {
		return "", nil, fmt.Errorf("expected a number of seconds from 0 on")
	}
	return stem + "USec", uint64(seconds * 1e6), nil
}

// resourceProperties are r's limits as far as systemd knows them.
func resourceProperties(ctx context.Context, m *systemd, v2 bool, r *specs.LinuxResources) ([]dbus.Struct, error) {
	p := &propertyList{m: m, v2: v2}
	err := p.resources(ctx, r)
	return p.list, err
}

func (p *propertyList) resources(ctx context.Context, r *specs.LinuxResources) error {
	if err := p.memory(r.Memory); err != nil {
		return err
	}
	if err := p.cpu(ctx, r.CPU); err != nil {
		return err
	}
	if b := r.BlockIO; b != nil && value(b.Weight) != 0 && !p.v2 {
		p.add("BlockIOWeight", uint64(*b.Weight))
	}
	if limit, ok := pidsLimit(r); ok && limit < 0 {
		p.add("TasksMax", uint64(math.MaxUint64))
	} else if ok {
		p.add("TasksMax", uint64(limit))
	}
	if p.v2 {
		return p.unified(ctx, r.Unified)
	}
	return nil
}

type propertyList struct {
	m       *systemd
	v2      bool
	list    []dbus.Struct
	version int // systemd's, once asked
}

func (p *propertyList) add(name string, value any) { p.list = append(p.list, property(name, value)) }

// since reports whether systemd is new enough for a property.
func (p *propertyList) since(ctx context.Context, version int, name string) (bool, error) {
	if p.version == 0 {
		text, err := p.m.get(ctx, "Version")
		if err != nil {
			return false, err
		}
		p.version = parseVersion(text)
	}
	if p.version < version {
		slog.Debug(fmt.Sprintf("systemd v%d is too old for %s (needs v%d); the limit is in the cgroup alone", p.version, name, version))
	}
	return p.version >= version, nil
}

// parseVersion reads the first number of "v252", "252.39-1~deb12u2".
func parseVersion(text string) int {
	text = strings.TrimPrefix(text, "v")
	end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		text = text[:end]
	}
	n, _ := strconv.Atoi(text) // 0 is older than everything
	return n
}

// bytes converts a limit: -1 is infinity, 0 unset.
func (p *propertyList) bytes(name string, n int64) {
	if n > 0 {
		p.add(name, uint64(n))
	} else if n < 0 {
		p.add(name, uint64(math.MaxUint64))
	}
}

func (p *propertyList) memory(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	if !p.v2 {
		p.bytes("MemoryLimit", value(m.Limit))
		return nil
	}
	p.bytes("MemoryMax", value(m.Limit))
	p.bytes("MemoryLow", value(m.Reservation))
	swap, err := swapV2(value(m.Limit), value(m.Swap))
	if err != nil {
		return err
	}
	return p.amount("MemorySwapMax", swap)
}

// amount adds a number of bytes as v2's files have it.
func (p *propertyList) amount(name, text string) error {
	switch text = strings.TrimSpace(text); text {
	case "":
	case "max":
		p.add(name, uint64(math.MaxUint64))
	default:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return invalid("unified", "%q is not a number, for systemd's %s", text, name)
		}
		p.add(name, n)
	}
	return nil
}

func (p *propertyList) cpu(ctx context.Context, cpu *specs.LinuxCPU) error {
	if cpu == nil {
		return nil
	}
	switch shares := value(cpu.Shares); {
	case shares == 0:
	case p.v2:
		p.add("CPUWeight", weightV2(shares))
	default:
		p.add("CPUShares", shares)
	}
	if p.v2 && cpu.Idle != nil && *cpu.Idle == 1 {
		if ok, err := p.since(ctx, 252, "CPUWeight=idle"); err != nil || ok {
			p.add("CPUWeight", uint64(0))
		}
	}
	if err := p.quota(ctx, value(cpu.Quota), value(cpu.Period)); err != nil {
		return err
	}
	return p.cpuset(ctx, cpu.Cpus, cpu.Mems)
}

// quota: systemd takes CPU time per second, in steps of 10 ms.
func (p *propertyList) quota(ctx context.Context, quota int64, period uint64) error {
	if quota == 0 && period == 0 {
		return nil
	}
	if period != 0 {
		ok, err := p.since(ctx, 242, "CPUQuotaPeriodUSec")
		if err != nil {
			return err
		}
		if ok {
			p.add("CPUQuotaPeriodUSec", period)
		}
	}
	perSecond := uint64(math.MaxUint64)
	if quota > 0 {
		if period == 0 {
			period = 100000
		}
		const step = 10000
		perSecond = (uint64(quota)*1000000/period + step - 1) / step * step
	}
	p.add("CPUQuotaPerSecUSec", perSecond)
	return nil
}

// cpuset: systemd sets it on v2 alone, but keeps the property everywhere.
func (p *propertyList) cpuset(ctx context.Context, cpus, mems string) error {
	for _, set := range []struct{ name, field, list string }{{"AllowedCPUs", "cpu.cpus", cpus}, {"AllowedMemoryNodes", "cpu.mems", mems}} {
		if set.list == "" {
			continue
		}
		ok, err := p.since(ctx, 244, set.name)
		if err != nil {
			return err
		}
		bits, err := bitmap(set.list)
		if err != nil {
			return invalid(set.field, "%w", err)
		}
		if ok {
			p.add(set.name, dbus.Bytes(bits))
		}
	}
	return nil
}

// maxSetBit bounds a set of CPUs; the kernel's largest is 8192.
const maxSetBit = 1 << 14

// bitmap converts a list as "0-3,7" to bytes, lowest first.
func bitmap(list string) ([]byte, error) {
	var bits []byte
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not a list of numbers", list)
		}
		last, err := strconv.ParseUint(to, 10, 32)
		if err != nil || last < first || last >= maxSetBit {
			return nil, fmt.Errorf("%q is not a list of numbers", list)
		}
		for n := first; n <= last; n++ {
			for uint64(len(bits)) <= n/8 {
				bits = append(bits, 0)
			}
			bits[n/8] |= 1 << (n % 8)
		}
	}
	if len(bits) == 0 {
		return nil, fmt.Errorf("%q is not a list of numbers", list)
	}
	return bits, nil
}

// unified converts those of v2's files that systemd would overwrite.
func (p *propertyList) unified(ctx context.Context, files map[string]string) error {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if err := p.unifiedFile(ctx, file, strings.TrimSpace(files[file])); err != nil {
			return err
		}
	}
	return nil
}

func (p *propertyList) unifiedFile(ctx context.Context, file, text string) error {
	switch file {
	case "memory.high":
		return p.amount("MemoryHigh", text)
	case "memory.low":
		return p.amount("MemoryLow", text)
	case "memory.min":
		return p.amount("MemoryMin", text)
	case "memory.max":
		return p.amount("MemoryMax", text)
	case "memory.swap.max":
		return p.amount("MemorySwapMax", text)
	case "pids.max":
		return p.amount("TasksMax", text)
	case "cpu.weight":
		return p.amount("CPUWeight", text)
	case "cpu.idle":
		if text == "1" {
			if ok, err := p.since(ctx, 252, "CPUWeight=idle"); err != nil || !ok {
				return err
			}
			p.add("CPUWeight", uint64(0))
		}
	case "cpu.max":
		return p.unifiedQuota(ctx, text)
	case "cpuset.cpus":
		return p.cpuset(ctx, text, "")
	case "cpuset.mems":
		return p.cpuset(ctx, "", text)
	}
	return nil // systemd has no word for it, and does not touch the file
}

// unifiedQuota reads cpu.max, "QUOTA [PERIOD]".
func (p *propertyList) unifiedQuota(ctx context.Context, text string) error {
	quota, period, _ := strings.Cut(text, " ")
	q, n := int64(-1), uint64(0)
	var err error
	if quota != "max" {
		q, err = strconv.ParseInt(quota, 10, 64)
	}
	if err == nil && period != "" {
		n, err = strconv.ParseUint(strings.TrimSpace(period), 10, 64)
	}
	if err != nil || q == 0 {
		return invalid("unified", "cpu.max: expected QUOTA or QUOTA PERIOD, got %q", text)
	}
	return p.quota(ctx, q, n)
}

// deviceProperties are the device rules in systemd's words. systemd puts a
// filter of its own beside ours, and both must allow: what it cannot say is
// left out, as in runc, and then denied.
func deviceProperties(rules []specs.LinuxDeviceCgroup) ([]dbus.Struct, error) {
	policy, err := newPolicy(rules)
	if err != nil {
		return nil, err
	}
	empty := property("DeviceAllow", dbus.Array{Element: "(ss)"})
	if policy.allowAll { // exceptions are in our own filter
		return []dbus.Struct{property("DevicePolicy", "auto"), empty}, nil
	}
	list := dbus.Array{Element: "(ss)"}
	for _, rule := range policy.exceptions {
		node, err := rule.systemdNode()
		if err != nil {
			return nil, err
		}
		if node == "" {
			slog.Warn(fmt.Sprintf("systemd cannot express the device rule %q: it is left out", rule))
			continue
		}
		list.Items = append(list.Items, dbus.Struct{node, rule.access.String()})
	}
	return []dbus.Struct{property("DevicePolicy", "strict"), empty, property("DeviceAllow", list)}, nil
}

// systemdNode is DeviceAllow's name for the rule's devices, "" if there is none.
func (r deviceRule) systemdNode() (string, error) {
	kind := "char"
	if r.kind == 'b' {
		kind = "block"
	}
	switch {
	case r.major == anyNumber && r.minor == anyNumber:
		return kind + "-*", nil
	case r.major == anyNumber:
		return "", nil
	case r.minor != anyNumber:
		return fmt.Sprintf("/dev/%s/%d:%d", kind, r.major, r.minor), nil
	}
	devices, err := os.ReadFile("/proc/devices")
	if err != nil {
		return "", fmt.Errorf("reading the kernel's devices: %w", err)
	}
	group := deviceGroup(string(devices), kind, r.major)
	if group == "" {
		return "", nil
	}
	return kind + "-" + group, nil
}

// deviceGroup finds a major number's name in /proc/devices, proc_devices(5).
func deviceGroup(devices, kind string, major int64) string {
	heading := map[string]string{"char": "Character devices:", "block": "Block devices:"}[kind]
	within := false
	for line := range strings.Lines(devices) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, ":") {
			within = line == heading
			continue
		}
		number, name, ok := strings.Cut(line, " ")
		if n, err := strconv.ParseInt(number, 10, 64); within && ok && err == nil && n == major {
			return strings.TrimSpace(name)
		}
	}
	return ""
}
