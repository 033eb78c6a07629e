package libcontainer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/seccomp"
	"github.com/engined/engined/nsenter"
)

var rlimits = map[string]uint64{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4,
	"RLIMIT_RSS": 5, "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9,
	"RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13,
	"RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

// capabilityNames in the order of their numbers, capability.h.
var capabilityNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// givenCapabilities are sets as bits. Unknown names, and what the runtime itself cannot
// give, are left out with a warning, one for each, as runc does.
func givenCapabilities(c *specs.LinuxCapabilities, available uint64) (caps capabilities) {
	var warned []string
	warn := func(text string) {
		if !slices.Contains(warned, text) {
			warned = append(warned, text)
			slog.Warn(text)
		}
	}
	for _, set := range []struct {
		names []string
		to    *uint64
	}{{c.Bounding, &caps.bounding}, {c.Effective, &caps.effective}, {c.Permitted, &caps.permitted}, {c.Inheritable, &caps.inheritable}, {c.Ambient, &caps.ambient}} {
		for _, name := range set.names {
			number := slices.Index(capabilityNames, name)
			switch {
			case number < 0:
				warn("ignoring unknown or unavailable capabilities: [" + name + "]")
			case available>>number&1 == 0:
				warn("ignoring unavailable capability: " + name)
			default:
				*set.to |= 1 << number
			}
		}
	}
	return caps
}

// processPart is what the plans of create and exec have in common: from a
// finished root to execve.
type processPart struct {
	process   *specs.Process
	available uint64 // capabilities the runtime can give
	filter    *seccomp.Filter
	fd        descriptors
	noGroups  bool // setgroups is denied
	apparmor  string
	hooks     []specs.Hook // startContainer
}

// compile appends the operations of a container's first process. Each has its place:
//
//   - before User, what root must do: limits (see raiseLimits), ownership;
//   - limits after what prepare has done, HOME opens a file;
//   - Chdir twice: root may not be allowed where the user is;
//   - Lookup as the user, before Ready, so that create fails already;
//   - the filter last, so that it need allow nothing but execve.
func (p *processPart) compile(plan *nsenter.Plan) error {
	p.attributes(plan)
	p.identity(plan)
	return p.leave(plan)
}

// prepare appends what needs procfs, which the host's is as long as the root is.
func (p *processPart) prepare(plan *nsenter.Plan) {
	p.environment(plan)
	p.labels(plan)
	p.cloexec(plan)
}

// labels are the process's from execve on, and its child's if it has one before.
func (p *processPart) labels(plan *nsenter.Plan) {
	if p.apparmor != "" {
		plan.Add(nsenter.Op{Code: nsenter.ProcWrite, Text: text("attr/apparmor/exec", "exec "+p.apparmor), Flags: nsenter.Self, Why: "setting the AppArmor profile " + p.apparmor})
	}
	if label := p.process.SelinuxLabel; label != "" {
		plan.Add(nsenter.Op{Code: nsenter.ProcWrite, Text: text("attr/exec", label), Flags: nsenter.Self, Why: "setting the SELinux label " + label})
	}
}

// attributes adds what is set with privilege and inherited over execve.
func (p *processPart) attributes(plan *nsenter.Plan) {
	process := p.process
	if s := process.Scheduler; s != nil {
		plan.Add(nsenter.Op{Code: nsenter.Scheduler, Blob: schedulerAttr(s), Why: "setting the scheduler " + string(s.Policy)})
	}
	if io := process.IOPriority; io != nil {
		plan.Add(nsenter.Op{Code: nsenter.IOPriority, Num: num(ioClasses[io.Class]<<13 | uint64(io.Priority)), Why: "setting the I/O priority"})
	}
	for _, r := range process.Rlimits {
		plan.Add(nsenter.Op{Code: nsenter.Rlimit, Num: num(rlimits[r.Type], r.Soft, r.Hard), Why: fmt.Sprintf("setting rlimit %s", r.Type)})
	}
}

// environment adds arguments and environment. HOME, if missing, is the user's
// of the container's /etc/passwd, as in runc.
func (p *processPart) environment(plan *nsenter.Plan) {
	env, home := environment(p.process.Env)
	plan.Add(nsenter.Op{Code: nsenter.Env, Strings: env})
	if !home {
		plan.Add(nsenter.Op{Code: nsenter.Home, Num: num(uint64(p.process.User.UID)), Why: "looking up the user's home"})
	}
	plan.Add(nsenter.Op{Code: nsenter.Args, Strings: p.process.Args})
}

// environment drops all but the last of entries with one name, and an empty
// HOME, and reports whether there is a HOME.
func environment(list []string) (env []string, home bool) {
	at := make(map[string]int, len(list))
	for _, entry := range list {
		name, value, _ := strings.Cut(entry, "=")
		if name == "HOME" {
			home = value != ""
		}
		if i, seen := at[name]; seen {
			env[i] = entry
			continue
		}
		at[name] = len(env)
		env = append(env, entry)
	}
	if i, seen := at["HOME"]; seen && !home {
		env = slices.Delete(env, i, i+1)
	}
	return env, home
}

func (p *processPart) cloexec(plan *nsenter.Plan) {
	plan.Add(nsenter.Op{Code: nsenter.Cloexec, Num: num(uint64(p.fd.firstFree)), Why: "keeping the runtime's descriptors out of the container"})
}

// identity adds user, groups and capabilities.
func (p *processPart) identity(plan *nsenter.Plan) {
	user := &p.process.User
	if user.UID != 0 {
		plan.Add(nsenter.Op{Code: nsenter.StdioOwner, Num: num(uint64(user.UID)), Why: "giving stdio to the user"})
	}
	if user.Umask != nil {
		plan.Add(nsenter.Op{Code: nsenter.Umask, Num: num(uint64(*user.Umask))})
	} else {
		plan.Add(nsenter.Op{Code: nsenter.Umask, Num: num(0o022)})
	}
	why := fmt.Sprintf("chdir to cwd (%q) set in config.json failed", p.process.Cwd)
	plan.Add(nsenter.Op{Code: nsenter.Chdir, Text: text(p.process.Cwd), Why: why})
	caps := p.capabilities()
	plan.Add(nsenter.Op{Code: nsenter.Bounding, Num: num(caps.bounding), Why: "dropping capabilities from the bounding set"})
	var groups []byte
	for _, gid := range user.AdditionalGids {
		groups = binary.NativeEndian.AppendUint32(groups, gid)
	}
	var flags nsenter.Flag
	if !p.noGroups {
		flags = nsenter.SetGroups
	}
	plan.Add(nsenter.Op{Code: nsenter.User, Num: num(uint64(user.UID), uint64(user.GID)), Blob: groups, Flags: flags,
		Why: fmt.Sprintf("becoming user %d:%d", user.UID, user.GID)})
	plan.Add(nsenter.Op{Code: nsenter.Caps, Num: num(caps.effective, caps.permitted, caps.inheritable, caps.ambient), Why: "setting capabilities"})
	plan.Add(nsenter.Op{Code: nsenter.Chdir, Text: text(p.process.Cwd), Flags: nsenter.AfterUser, Why: why})
}

type capabilities struct{ bounding, effective, permitted, inheritable, ambient uint64 }

// raisable is what the kernel lets become ambient: only what is permitted and
// inheritable (capabilities(7)). The rest is left out as in runc, without a
// warning: `runc spec` wrote such sets for years.
func raisable(ambient, possible uint64) uint64 {
	for number, name := range capabilityNames {
		if (ambient&^possible)>>number&1 == 1 {
			slog.Debug("can't raise ambient capability " + name + ": it is not permitted and inheritable")
		}
	}
	return ambient & possible
}

func (p *processPart) capabilities() capabilities {
	var caps capabilities
	if c := p.process.Capabilities; c != nil {
		caps = givenCapabilities(c, p.available)
		caps.ambient = raisable(caps.ambient, caps.permitted&caps.inheritable)
	}
	if p.filter != nil && !p.process.NoNewPrivileges {
		// Loading a filter takes CAP_SYS_ADMIN or no_new_privs. Keeping it
		// to the end lets the filter be the last thing before execve, which
		// computes the sets anew from bounding, inheritable and ambient.
		admin := p.available & (1 << unix.CAP_SYS_ADMIN)
		caps.effective |= admin
		caps.permitted |= admin
	}
	return caps
}

// leave adds the last steps.
func (p *processPart) leave(plan *nsenter.Plan) error {
	if p.process.NoNewPrivileges {
		plan.Add(nsenter.Op{Code: nsenter.NoNewPrivs})
	}
	command, waits := p.process.Args[0], p.fd.fifo >= 0
	plan.Add(nsenter.Op{Code: nsenter.Lookup, Text: text(command, lookupPath(p.process.Env)), Why: fmt.Sprintf("exec: %q", command)})
	if len(p.hooks) > 0 && !waits { // else start comes after all that
		plan.Add(nsenter.Op{Code: nsenter.Sync, Num: num(stepRecorded), Why: "waiting until there is a state to tell the hooks"})
	}
	notify := p.filter != nil && p.filter.Notify
	if notify {
		// The parent takes the listener to the agent, so it must still be
		// there. What follows is under the filter.
		plan.Add(nsenter.Op{Code: nsenter.Seccomp, Blob: p.filter.Program, Num: num(uint64(p.filter.Flags)), Flags: nsenter.Listener, Why: "loading the seccomp filter and handing its listener over"})
	}
	if waits {
		plan.Add(nsenter.Op{Code: nsenter.Ready, Why: "created; the parent may leave"})
		plan.Add(nsenter.Op{Code: nsenter.AwaitStart, Why: "waiting for start"})
	}
	var confine []nsenter.Op
	if p.filter != nil && !notify {
		confine = []nsenter.Op{{Code: nsenter.Seccomp, Blob: p.filter.Program, Num: num(uint64(p.filter.Flags)), Why: "loading the seccomp filter"}}
	}
	p.runHooks(plan, confine)
	plan.Ops = append(plan.Ops, confine...)
	plan.Add(nsenter.Op{Code: nsenter.Exec, Text: text(command), Why: fmt.Sprintf("exec %s", command)})
	return nil
}

// runHooks adds the startContainer hooks. They are the image's programs: they have
// what the process has, save its descriptors and, if they name one, its environment.
func (p *processPart) runHooks(plan *nsenter.Plan, confine []nsenter.Op) {
	for i := range p.hooks {
		hook := &p.hooks[i]
		does := []nsenter.Op{{Code: nsenter.Cloexec, Num: num(3, uint64(p.fd.firstFree)), Why: "keeping all descriptors from the hook"}}
		if hook.Env != nil { // else it has the process's
			env, _ := environment(hook.Env)
			does = append(does, nsenter.Op{Code: nsenter.Env, Strings: env})
		}
		does = append(does, nsenter.Op{Code: nsenter.Args, Strings: hookArgs(hook)}, nsenter.Op{Code: nsenter.Lookup, Text: text(hook.Path)})
		does = append(append(does, confine...), nsenter.Op{Code: nsenter.Exec, Text: text(hook.Path)})
		plan.Add(nsenter.Op{Code: nsenter.Hook, Text: text(hook.Path), Num: num(uint64(len(does)), hookTimeout(hook), uint64(p.fd.state), uint64(p.fd.output)),
			Why: fmt.Sprintf("startContainer hook #%d", i)})
		plan.Ops = append(plan.Ops, does...)
	}
	if len(p.hooks) > 0 && p.fd.fifo >= 0 {
		plan.Add(nsenter.Op{Code: nsenter.Started, Why: "telling start that the hooks are done"})
	}
}

// lookupPath returns PATH of the environment, the last one as exec sees it.
func lookupPath(env []string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return value
		}
	}
	return ""
}

var ioClasses = map[specs.IOPriorityClass]uint64{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

var schedulerPolicies = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3,
	specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
}

var schedulerFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4,
	specs.SchedFlagKeepPolicy: 8, specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
}

// schedulerAttr lays out struct sched_attr, sched_setattr(2).
func schedulerAttr(s *specs.Scheduler) []byte {
	var flags uint64
	for _, f := range s.Flags {
		flags |= schedulerFlags[f]
	}
	attr := struct {
		Size, Policy              uint32
		Flags                     uint64
		Nice                      int32
		Priority                  uint32
		Runtime, Deadline, Period uint64
	}{48, schedulerPolicies[s.Policy], flags, s.Nice, uint32(s.Priority), s.Runtime, s.Deadline, s.Period}
	var out bytes.Buffer
	binary.Write(&out, binary.NativeEndian, attr) //nolint:errcheck // a Buffer does not fail
	return out.Bytes()
}

func text(texts ...string) (out [3]string) { copy(out[:], texts); return }

func num(numbers ...uint64) (out [4]uint64) { copy(out[:], numbers); return }
