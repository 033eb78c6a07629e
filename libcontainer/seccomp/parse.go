package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// verdict is what a filter returns: SECCOMP_RET_* and data.
type verdict uint32

// actionVerdicts are the spec's actions. Those in withErrno carry a number.
var actionVerdicts = map[specs.LinuxSeccompAction]verdict{
	specs.ActKill:        unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillThread:  unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillProcess: unix.SECCOMP_RET_KILL_PROCESS,
	specs.ActTrap:        unix.SECCOMP_RET_TRAP,
	specs.ActErrno:       unix.SECCOMP_RET_ERRNO,
	specs.ActTrace:       unix.SECCOMP_RET_TRACE,
	specs.ActAllow:       unix.SECCOMP_RET_ALLOW,
	specs.ActLog:         unix.SECCOMP_RET_LOG,
	specs.ActNotify:      unix.SECCOMP_RET_USER_NOTIF,
}

var withErrno = []specs.LinuxSeccompAction{specs.ActErrno, specs.ActTrace}

// comparison is an operator of the spec.
type comparison int

const (
	equal comparison = iota
	notEqual
	less
	lessOrEqual
	greater
	greaterOrEqual
	maskedEqual
)

var comparisons = map[specs.LinuxSeccompOperator]comparison{
	specs.OpEqualTo: equal, specs.OpNotEqual: notEqual, specs.OpLessThan: less, specs.OpLessEqual: lessOrEqual,
	specs.OpGreaterThan: greater, specs.OpGreaterEqual: greaterOrEqual, specs.OpMaskedEqual: maskedEqual,
}

// condition compares one argument of the system call.
type condition struct {
	index uint
	op    comparison
	value uint64
	mask  uint64 // maskedEqual only
}

// rule is a rule of the profile. Its alternatives are lists of conditions that
// must all hold; none at all means always.
type rule struct {
	names        []string
	verdict      verdict
	noop         bool // the default's verdict: counts for the largest number only
	alternatives [][]condition
}

// parsed is a profile in numbers and still with names.
type parsed struct {
	otherwise verdict
	enosys    bool // numbers that the profile cannot know answer ENOSYS
	archs     []arch
	rules     []rule
	notify    bool
}

func parse(profile *specs.LinuxSeccomp) (parsed, error) {
	var p parsed
	var err error
	p.otherwise, err = parseAction("defaultAction", profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return p, err
	}
	if profile.DefaultAction == specs.ActNotify {
		return p, invalid("defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
	}
	switch profile.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
	default:
		p.enosys = p.otherwise != enosys
	}
	if p.archs, err = parseArchs(profile.Architectures); err != nil {
		return p, err
	}
	for i := range profile.Syscalls {
		r, err := parseRule(fmt.Sprintf("syscalls[%d]", i), &profile.Syscalls[i])
		if err != nil {
			return p, err
		}
		r.noop = r.verdict == p.otherwise
		if profile.Syscalls[i].Action == specs.ActNotify {
			p.notify = true
		}
		p.rules = append(p.rules, r)
	}
	switch {
	case p.notify && profile.ListenerPath == "":
		return p, invalid("listenerPath", "SCMP_ACT_NOTIFY needs it")
	case profile.ListenerPath == "" && profile.ListenerMetadata != "":
		return p, invalid("listenerMetadata", "expected none without a listenerPath")
	case !p.notify && slices.Contains(profile.Flags, specs.LinuxSeccompFlagWaitKillableRecv):
		return p, invalid("flags", "%s is about SCMP_ACT_NOTIFY, which no rule has", specs.LinuxSeccompFlagWaitKillableRecv)
	}
	return p, nil
}

const enosys = verdict(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))

func parseAction(field string, action specs.LinuxSeccompAction, errno *uint) (verdict, error) {
	v, ok := actionVerdicts[action]
	if !ok {
		return 0, invalid(field, "string %s is not a valid action for seccomp", action)
	}
	if !slices.Contains(withErrno, action) {
		if errno != nil && *errno != 0 {
			return 0, invalid(field, "%s does not take an errno", action)
		}
		return v, nil
	}
	number := uint(unix.EPERM)
	if errno != nil {
		number = *errno
	}
	if number > 4095 { // MAX_ERRNO: the kernel would lower it silently
		return 0, invalid(field, "errno %d is larger than 4095", number)
	}
	return v | verdict(number), nil
}

func parseRule(field string, s *specs.LinuxSyscall) (rule, error) {
	r := rule{names: s.Names}
	if len(s.Names) == 0 {
		return r, invalid(field+".names", "empty")
	}
	var err error
	if r.verdict, err = parseAction(field+".action", s.Action, s.ErrnoRet); err != nil {
		return r, err
	}
	// The agent would have to answer its own write of the answer.
	if s.Action == specs.ActNotify && slices.Contains(s.Names, "write") {
		return r, invalid(field, "SCMP_ACT_NOTIFY cannot be used for the write syscall")
	}
	var all []condition
	twice := false
	for i, arg := range s.Args {
		c, err := parseCondition(fmt.Sprintf("%s.args[%d]", field, i), arg)
		if err != nil {
			return r, err
		}
		twice = twice || slices.ContainsFunc(all, func(other condition) bool { return other.index == c.index })
		all = append(all, c)
	}
	switch {
	case twice: // as runc: two conditions on one argument make the list one of alternatives
		for _, c := range all {
			r.alternatives = append(r.alternatives, []condition{c})
		}
	case len(all) > 0:
		r.alternatives = [][]condition{all}
	}
	return r, nil
}

func parseCondition(field string, arg specs.LinuxSeccompArg) (condition, error) {
	op, ok := comparisons[arg.Op]
	if !ok {
		return condition{}, invalid(field+".op", "string %s is not a valid operator for seccomp", arg.Op)
	}
	if arg.Index > 5 {
		return condition{}, invalid(field+".index", "%d, a system call has arguments 0 to 5", arg.Index)
	}
	c := condition{index: arg.Index, op: op, value: arg.Value}
	if op == maskedEqual {
		c.mask, c.value = arg.Value, arg.ValueTwo&arg.Value
	}
	return c, nil
}
