package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// access is a set of what may be done with a device, with the kernel's bits
// (BPF_DEVCG_ACC_*).
type access uint8

const (
	accessMknod access = 1 << iota
	accessRead
	accessWrite
	accessAll = accessMknod | accessRead | accessWrite
)

// any is a major or minor number that stands for all of them.
const anyNumber = -1

// deviceKey says which devices an exception is about.
type deviceKey struct {
	kind         byte // 'b' or 'c'
	major, minor int64
}

// deviceRule is an exception to a policy's default.
type deviceRule struct {
	deviceKey
	access access
}

// devicePolicy is a rule list in the form that the v1 kernel keeps too: a
// default, and exceptions which all say the opposite.
type devicePolicy struct {
	allowAll   bool
	exceptions []deviceRule
}

// alwaysAllowed is what the OCI spec gives each container (config-linux.md,
// default devices), mknod of anything, and, as runc, ptys and tun.
var alwaysAllowed = []deviceRule{
	{deviceKey{'c', anyNumber, anyNumber}, accessMknod},
	{deviceKey{'b', anyNumber, anyNumber}, accessMknod},
	{deviceKey{'c', 1, 3}, accessAll},           // null
	{deviceKey{'c', 1, 8}, accessAll},           // random
	{deviceKey{'c', 1, 7}, accessAll},           // full
	{deviceKey{'c', 5, 0}, accessAll},           // tty
	{deviceKey{'c', 1, 5}, accessAll},           // zero
	{deviceKey{'c', 1, 9}, accessAll},           // urandom
	{deviceKey{'c', 136, anyNumber}, accessAll}, // pts/N
	{deviceKey{'c', 5, 2}, accessAll},           // ptmx
	{deviceKey{'c', 10, 200}, accessAll},        // net/tun
}

// newPolicy applies the rules in order to "nothing is allowed", then what is
// always allowed.
func newPolicy(rules []specs.LinuxDeviceCgroup) (devicePolicy, error) {
	var p devicePolicy
	for i, rule := range rules {
		parsed, err := parseRule(rule)
		if err == nil {
			err = p.apply(rule.Allow, parsed)
		}
		if err != nil {
			return devicePolicy{}, invalid(fmt.Sprintf("devices[%d]", i), "%w", err)
		}
	}
	for _, rule := range alwaysAllowed {
		if err := p.apply(true, rule); err != nil {
			return devicePolicy{}, invalid("devices", "allowing what every container has: %w", err)
		}
	}
	return p, nil
}

// parseRule converts a rule of the spec. kind 'a' stands for every device.
func parseRule(rule specs.LinuxDeviceCgroup) (deviceRule, error) {
	parsed := deviceRule{deviceKey: deviceKey{'a', anyNumber, anyNumber}}
	switch rule.Type {
	case "", "a":
	case "b", "c":
		parsed.kind = rule.Type[0]
	case "u":
		parsed.kind = 'c'
	default:
		return parsed, fmt.Errorf("invalid device type %q: expected a, b, c or u", rule.Type)
	}
	for _, number := range []struct {
		from *int64
		to   *int64
	}{{rule.Major, &parsed.major}, {rule.Minor, &parsed.minor}} {
		if number.from == nil {
			continue
		}
		if *number.from < anyNumber || *number.from > 0xffffffff {
			return parsed, fmt.Errorf("invalid device number %d", *number.from)
		}
		*number.to = *number.from
	}
	var err error
	parsed.access, err = parseAccess(rule.Access)
	return parsed, err
}

// parseAccess reads rwm in any order; empty is all.
func parseAccess(text string) (access, error) {
	if text == "" {
		return accessAll, nil
	}
	var a access
	for _, letter := range text {
		switch letter {
		case 'r':
			a |= accessRead
		case 'w':
			a |= accessWrite
		case 'm':
			a |= accessMknod
		default:
			return 0, fmt.Errorf("invalid device access %q: expected letters of rwm", text)
		}
	}
	return a, nil
}

func (a access) String() string {
	text := ""
	for _, bit := range []struct {
		a    access
		name string
	}{{accessRead, "r"}, {accessWrite, "w"}, {accessMknod, "m"}} {
		if a&bit.a != 0 {
			text += bit.name
		}
	}
	return text
}

// apply adds one rule. A rule for every device starts over, as the v1 kernel
// does when "a" is written to it.
func (p *devicePolicy) apply(allow bool, rule deviceRule) error {
	if rule.kind == 'a' {
		if rule.major != anyNumber || rule.minor != anyNumber || rule.access != accessAll {
			return p.applyBoth(allow, rule)
		}
		p.allowAll, p.exceptions = allow, nil
		return nil
	}
	at := slices.IndexFunc(p.exceptions, func(e deviceRule) bool { return e.deviceKey == rule.deviceKey })
	if allow != p.allowAll {
		if at < 0 {
			p.exceptions = append(p.exceptions, rule)
		} else {
			p.exceptions[at].access |= rule.access
		}
		return nil
	}
	for _, e := range p.exceptions {
		if e.deviceKey != rule.deviceKey && e.covers(rule.deviceKey) && e.access&rule.access != 0 {
			return fmt.Errorf("cannot punch a hole into the wider rule %q", e)
		}
	}
	p.exceptions = slices.DeleteFunc(p.exceptions, func(e deviceRule) bool {
		return rule.covers(e.deviceKey) && e.access&^rule.access == 0
	})
	for i := range p.exceptions {
		if rule.covers(p.exceptions[i].deviceKey) {
			p.exceptions[i].access &^= rule.access
		}
	}
	return nil
}

// applyBoth takes a partial rule of type a as one for block and one for
// character devices.
func (p *devicePolicy) applyBoth(allow bool, rule deviceRule) error {
	for _, kind := range []byte{'b', 'c'} {
		rule.kind = kind
		if err := p.apply(allow, rule); err != nil {
			return err
		}
	}
	return nil
}

// covers reports whether every device of other is one of k.
func (k deviceKey) covers(other deviceKey) bool {
	return k.kind == other.kind && (k.major == anyNumber || k.major == other.major) &&
		(k.minor == anyNumber || k.minor == other.minor)
}

// String is the rule as v1's files take it.
func (r deviceRule) String() string {
	number := func(n int64) string {
		if n == anyNumber {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return string(r.kind) + " " + number(r.major) + ":" + number(r.minor) + " " + r.access.String()
}

// writesV1 returns what sets the policy in a v1 cgroup, whatever it inherited:
// "a" into one file, the exceptions into the other.
func (p devicePolicy) writesV1() (first, second string, lines []string) {
	first, second = "devices.deny", "devices.allow"
	if p.allowAll {
		first, second = second, first
	}
	for _, e := range p.exceptions {
		lines = append(lines, e.String())
	}
	return first, second, lines
}

// setDevices puts the policy in force. A v1 host without a devices hierarchy
// has a v2 one, to which a filter can be attached. Below a user namespace the
// kernel refuses, and has already restricted devices by not giving CAP_MKNOD.
func (c *Cgroup) setDevices(rules []specs.LinuxDeviceCgroup) error {
	policy, err := newPolicy(rules)
	if err != nil {
		return err
	}
	switch dir := c.dirOf("devices"); {
	case dir != "":
		err = policy.setV1(dir)
	case c.location.V2 != "":
		err = attachDeviceFilter(c.location.V2, policy)
	default:
		err = fmt.Errorf("the devices cgroup is not available: %w", unix.EPERM)
	}
	if errors.Is(err, unix.EPERM) && (unix.Geteuid() != 0 || InUserNamespace()) {
		return nil
	}
	return err
}

func (p devicePolicy) setV1(dir string) error {
	first, second, lines := p.writesV1()
	if err := write(dir, first, "a"); err != nil {
		return failed("devices", first, "a", err)
	}
	if len(lines) == 0 {
		return nil
	}
	if err := write(dir, second, lines...); err != nil {
		return failed("devices", second, strings.Join(lines, ", "), err)
	}
	return nil
}

// InUserNamespace reports whether ids are mapped: the first namespace maps all
// of them to themselves.
func InUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(data)), " ") != "0 0 4294967295"
}
