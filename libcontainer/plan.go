package libcontainer

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/rootfs"
	"github.com/engined/engined/libcontainer/seccomp"
	"github.com/engined/engined/nsenter"
)

// Steps that the parent does between two operations.
const (
	stepCreate   uint64 = 1 + iota // prestart, createRuntime and createContainer hooks
	stepRecorded                   // nothing, but what follows wants what the parent does before it listens
	stepMaps                       // the id maps of the user namespace that the child just made
	stepTime                       // the offsets of its time namespace
	stepDevices                    // network devices of the host move in
)

// facts is all that a plan depends on besides the spec.
type facts struct {
	root      rootfs.Host
	id        string
	joinFiles []string // cgroup files that take in the process that writes 0
	lateCPU   bool     // the parent gives the cgroup its CPUs meanwhile
	lateFile  string   // of a cgroup that has none before
	joinFDs   []int    // the same as inherited; in a user namespace they cannot be opened
	fd        descriptors
	available uint64 // capabilities the runtime can give
	filter    *seccomp.Filter
	keyring   bool // a new session keyring
	plain     bool // the terminal leaves lines as they are
	apparmor  bool // the host has it
	user      caller
	rootfs    string // exec: where the root is, if the container has no mount namespace
}

// descriptors are the numbers that the child inherits things under; -1: not.
type descriptors struct {
	fifo, console, container int
	firstFree                int // first that is not the process's

	// With startContainer hooks only; 0: not.
	state, output int
	report        int // if it waits for start
}

// compilePlan orders everything that the container's process does to itself.
// It is pure.
func compilePlan(spec *specs.Spec, f *facts) (*nsenter.Plan, error) {
	plan := &nsenter.Plan{Ops: make([]nsenter.Op, 0, 192)}
	f.fd.adopt(plan)
	// The host's procfs, while it is reachable and certainly the kernel's:
	// sysctls and labels are written by it (CVE-2025-52881).
	plan.Add(nsenter.Op{Code: nsenter.Proc, Why: "opening the host's /proc"})
	joinCgroup(plan, f)
	if !f.lateCPU {
		everyCPU(plan)
	}
	namespacePart(plan, spec, f)
	if err := rootfs.Build(plan, spec, &f.root); err != nil {
		return nil, err
	}
	if f.lateCPU {
		joinLate(plan, f.lateFile)
	}
	if hasCreateHooks(spec) {
		// After the mounts, before the switch of roots (config.md, hooks).
		op := nsenter.Op{Code: nsenter.Sync, Num: num(stepCreate), Why: "prestart, createRuntime and createContainer hooks"}
		if f.user.unprivileged && newPid(spec) {
			// To let hooks in. Nobody else is in the container to look.
			op.Flags = nsenter.Visible
		}
		plan.Add(op)
	}
	sysctls(plan, spec)
	sessionPart(plan, f)
	terminalPart(plan, spec.Process, f)
	controlPart(plan, spec.Process)
	part := f.part(spec.Process, startHooks(spec))
	part.prepare(plan)
	rootfs.Finish(plan, spec, &f.root)
	plan.Add(nsenter.Op{Code: nsenter.Drop, Why: "closing what is the host's"})
	if err := executionPart(plan, spec.Linux); err != nil {
		return nil, err
	}
	return plan, part.compile(plan)
}

// part returns the process part for a process.
func (f *facts) part(p *specs.Process, hooks []specs.Hook) *processPart {
	part := &processPart{process: p, available: f.available, noGroups: f.user.noGroups, filter: f.filter, fd: f.fd, hooks: hooks}
	if p.ApparmorProfile != "" && f.apparmor {
		part.apparmor = p.ApparmorProfile
	}
	return part
}

// executionPart sets what the container's processes inherit over execve and
// that no namespace keeps: exec sets it again.
func executionPart(plan *nsenter.Plan, linux *specs.Linux) error {
	if p := linux.Personality; p != nil {
		plan.Add(nsenter.Op{Code: nsenter.Personality, Num: num(personality(p)), Why: "setting the personality"})
	}
	policy := linux.MemoryPolicy
	if policy == nil {
		return nil
	}
	nodes, err := numberMask("linux.memoryPolicy.nodes", "memory nodes", policy.Nodes)
	if err != nil {
		return err
	}
	plan.Add(nsenter.Op{Code: nsenter.MemoryPolicy, Num: num(memoryPolicy(policy)), Blob: nodes, Why: "setting the memory policy " + string(policy.Mode)})
	return nil
}

func personality(p *specs.LinuxPersonality) uint64 {
	if p.Domain == specs.PerLinux32 {
		return 8 // PER_LINUX32
	}
	return 0
}

// adopt tells the stage which inherited descriptor is what.
func (d descriptors) adopt(plan *nsenter.Plan) {
	for _, in := range []struct {
		slot uint64
		fd   int
		why  string
	}{
		{nsenter.SlotFifo, d.fifo, "exec.fifo"},
		{nsenter.SlotConsole, d.console, "the console socket"},
		{nsenter.SlotContainer, d.container, "the container's init"},
	} {
		if in.fd >= 0 {
			plan.Add(nsenter.Op{Code: nsenter.Adopt, Num: num(in.slot, uint64(in.fd)), Why: in.why})
		}
	}
	if d.report > 0 {
		plan.Add(nsenter.Op{Code: nsenter.Adopt, Num: num(nsenter.SlotReport, uint64(d.report)), Why: HooksFile})
	}
}

// joinCgroup comes first, so that all that follows is accounted for, and
// before a cgroup namespace is made, whose root is the cgroup at that moment.
// "tasks", written by its only thread itself, does not wait for RCU as
// cgroup.procs does (9 ms after idleness).
func joinCgroup(plan *nsenter.Plan, f *facts) {
	for i, file := range f.joinFiles {
		op := nsenter.Op{Code: nsenter.Write, Text: text(file, "0"), Why: "joining the cgroup of " + file}
		if i < len(f.joinFDs) {
			op.Num = num(uint64(f.joinFDs[i]))
		}
		plan.Add(op)
	}
}

// joinLate joins what the parent had to do something about first.
func joinLate(plan *nsenter.Plan, file string) {
	plan.Add(nsenter.Op{Code: nsenter.Await, Why: "waiting until the cgroup has its CPUs"})
	if file != "" {
		plan.Add(nsenter.Op{Code: nsenter.Write, Text: text(file, "0"), Why: "joining the cgroup of " + file})
	}
	everyCPU(plan)
}

// everyCPU undoes what the runtime itself was bound to, as by systemd's
// CPUAffinity=. Since 6.2 the kernel no longer does it for who enters a cpuset.
func everyCPU(plan *nsenter.Plan) {
	plan.Add(nsenter.Op{Code: nsenter.Affinity, Flags: nsenter.Optional, Why: "taking every CPU that the cgroup has"})
}

// namespacePart joins and makes what birth could not, and sets what belongs to
// namespaces.
func namespacePart(plan *nsenter.Plan, spec *specs.Spec, f *facts) {
	// In a user namespace the parent does it: it takes the host's root.
	if adj := spec.Process.OOMScoreAdj; adj != nil && (f.user.unprivileged || !private(spec, specs.UserNamespace)) {
		plan.Add(nsenter.Op{Code: nsenter.ProcWrite, Text: text("oom_score_adj", strconv.Itoa(*adj)), Flags: nsenter.Self, Why: "setting oom_score_adj"})
	}
	joinNamespaces(plan, spec)
	if staged(spec, f.user) {
		makeNamespaces(plan, spec, f.user)
	}
	if ns := namespace(spec, specs.CgroupNamespace); ns != nil && ns.Path == "" {
		plan.Add(nsenter.Op{Code: nsenter.Unshare, Num: num(unix.CLONE_NEWCGROUP), Why: "making a cgroup namespace rooted in the container's cgroup"})
	}
	if ns := namespace(spec, specs.NetworkNamespace); ns != nil && ns.Path == "" {
		plan.Add(nsenter.Op{Code: nsenter.Loopback, Why: "bringing the loopback interface up"})
	}
	if len(spec.Linux.NetDevices) > 0 {
		plan.Add(nsenter.Op{Code: nsenter.Sync, Num: num(stepDevices), Why: "moving network devices in"})
	}
	if spec.Hostname != "" {
		plan.Add(nsenter.Op{Code: nsenter.Hostname, Text: text(spec.Hostname), Why: "setting the hostname"})
	}
	if spec.Domainname != "" {
		plan.Add(nsenter.Op{Code: nsenter.Domainname, Text: text(spec.Domainname), Why: "setting the domainname"})
	}
}

// sysctls follow the hooks, as in runc: those of a network device that a hook moves
// in are there only then.
func sysctls(plan *nsenter.Plan, spec *specs.Spec) {
	for _, key := range slices.Sorted(maps.Keys(spec.Linux.Sysctl)) {
		plan.Add(nsenter.Op{Code: nsenter.ProcWrite, Flags: nsenter.Own, Text: text(sysctlPath(key), spec.Linux.Sysctl[key]), Why: "setting sysctl " + key})
	}
}

// joinNamespaces joins those that have a path, while the process still has the
// host's rights: the user namespace after all others but mnt, which changes
// what a path is. The parent joins the pid namespace, for its children.
func joinNamespaces(plan *nsenter.Plan, spec *specs.Spec) {
	join := func(ns *specs.LinuxNamespace) {
		if ns != nil && ns.Path != "" {
			plan.Add(nsenter.Op{Code: nsenter.Setns, Text: text(ns.Path), Num: num(cloneFlags[ns.Type]), Why: fmt.Sprintf("joining %s namespace %q", ns.Type, ns.Path)})
		}
	}
	for i := range spec.Linux.Namespaces {
		switch ns := &spec.Linux.Namespaces[i]; ns.Type {
		case specs.PIDNamespace, specs.UserNamespace, specs.MountNamespace:
		default:
			join(ns)
		}
	}
	join(namespace(spec, specs.UserNamespace))
	join(namespace(spec, specs.MountNamespace))
}

// staged reports whether the child makes its namespaces itself, after it
// joined others, and goes on in a child of its own: those of a user namespace
// must be made in there, what is joined from a new one must be joined first,
// and time takes in only children. So does an unprivileged user, whose id maps
// others may have to write. Else it is born with them all (birth.divide).
func staged(spec *specs.Spec, by caller) bool {
	if newTime(spec) || by.unprivileged {
		return true
	}
	user := namespace(spec, specs.UserNamespace)
	return user != nil && (user.Path != "" || slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Path != "" && ns.Type != specs.PIDNamespace
	}))
}

func newTime(spec *specs.Spec) bool {
	ns := namespace(spec, specs.TimeNamespace)
	return ns != nil && ns.Path == ""
}

func newPid(spec *specs.Spec) bool {
	ns := namespace(spec, specs.PIDNamespace)
	return ns != nil && ns.Path == ""
}

// makeNamespaces makes what is new, the user namespace first: its root has the
// right to the others.
func makeNamespaces(plan *nsenter.Plan, spec *specs.Spec, by caller) {
	sync := func(step uint64, why string) {
		op := nsenter.Op{Code: nsenter.Sync, Num: num(step), Why: why}
		if by.unprivileged {
			op.Flags = nsenter.Visible
		}
		plan.Add(op)
	}
	if user := namespace(spec, specs.UserNamespace); user != nil {
		if user.Path == "" {
			plan.Add(nsenter.Op{Code: nsenter.Unshare, Num: num(unix.CLONE_NEWUSER), Why: "making a user namespace"})
			sync(stepMaps, "writing its id maps")
		}
		becomeRoot(plan, 0)
	}
	if flags := uint64(newNamespaces(spec.Linux.Namespaces)) &^ unix.CLONE_NEWUSER; flags != 0 {
		plan.Add(nsenter.Op{Code: nsenter.Unshare, Num: num(flags), Why: "making the other namespaces"})
	}
	if newTime(spec) {
		plan.Add(nsenter.Op{Code: nsenter.Unshare, Num: num(unix.CLONE_NEWTIME), Why: "making a time namespace"})
	}
	if len(spec.Linux.TimeOffsets) > 0 {
		// While nobody is in it, and by the parent, who has the right to.
		sync(stepTime, "setting the clocks' offsets")
	}
	plan.Add(nsenter.Op{Code: nsenter.Clone, Why: "going on as a child, in the new namespaces"})
}

// becomeRoot is without the caller's groups if flags say so.
func becomeRoot(plan *nsenter.Plan, flags nsenter.Flag) {
	plan.Add(nsenter.Op{Code: nsenter.User, Flags: flags, Why: "becoming root of the user namespace"})
}

// sysctlPath returns the file of a sysctl below /proc. With a slash anywhere
// before the first dot the name is a path already (sysctl(8)).
func sysctlPath(key string) string {
	if slash, dot := strings.IndexByte(key, '/'), strings.IndexByte(key, '.'); slash >= 0 && (dot < 0 || slash < dot) {
		return "sys/" + key
	}
	return "sys/" + strings.NewReplacer(".", "/", "/", ".").Replace(key)
}

// keyringOf names a container's session keyring as runc does.
func keyringOf(id string) string { return "_ses." + id }

// sessionPart gives the process a session and a keyring.
func sessionPart(plan *nsenter.Plan, f *facts) {
	if f.keyring {
		plan.Add(nsenter.Op{Code: nsenter.Keyring, Text: text(keyringOf(f.id)), Why: "joining a session keyring"})
	}
	plan.Add(nsenter.Op{Code: nsenter.Setsid, Why: "starting a session"})
}

// terminalPart makes the terminal if the process wants one, from the container's own
// devpts.
func terminalPart(plan *nsenter.Plan, p *specs.Process, f *facts) {
	if !p.Terminal {
		return
	}
	op := nsenter.Op{Code: nsenter.Terminal, Why: "making the terminal"}
	if size := p.ConsoleSize; size != nil {
		op.Num = num(uint64(size.Height), uint64(size.Width))
	}
	if f.plain {
		op.Num[2] = 1
	}
	if f.fd.container < 0 {
		op.Flags = nsenter.Console // exec leaves /dev/console alone
	}
	plan.Add(op)
}

// controlPart makes the terminal that of the session.
func controlPart(plan *nsenter.Plan, p *specs.Process) {
	if p.Terminal {
		plan.Add(nsenter.Op{Code: nsenter.Control, Why: "making the terminal the session's"})
	}
}

// joinWithAffinity joins the cgroup with the CPUs of before and sets those of
// after (config.md, execCPUAffinity). Where clone made the process in its v2
// cgroup there was no before.
func joinWithAffinity(plan *nsenter.Plan, affinity *specs.CPUAffinity, f *facts) error {
	if affinity == nil {
		affinity = &specs.CPUAffinity{}
	}
	initial, err := numberMask("process.execCPUAffinity.initial", "CPUs", affinity.Initial)
	if err != nil {
		return err
	}
	final, err := numberMask("process.execCPUAffinity.final", "CPUs", affinity.Final)
	if err != nil {
		return err
	}
	if initial != nil && len(f.joinFiles) > 0 {
		plan.Add(nsenter.Op{Code: nsenter.Affinity, Blob: initial, Why: "setting the CPU affinity " + affinity.Initial})
	}
	joinCgroup(plan, f)
	if final == nil {
		everyCPU(plan)
		return nil
	}
	plan.Add(nsenter.Op{Code: nsenter.Affinity, Blob: final, Why: "setting the CPU affinity " + affinity.Final})
	return nil
}

// compileExec is the plan of a further process in a container: join, then the
// process part. What needs procfs or the console's socket is done before the process
// is in the pid namespace.
func compileExec(p *specs.Process, linux *specs.Linux, namespaces uint64, f *facts) (*nsenter.Plan, error) {
	plan := &nsenter.Plan{Ops: make([]nsenter.Op, 0, 64)}
	f.fd.adopt(plan)
	plan.Add(nsenter.Op{Code: nsenter.Proc, Why: "opening the host's /proc"})
	if err := joinWithAffinity(plan, p.ExecCPUAffinity, f); err != nil {
		return nil, err
	}
	if adj := p.OOMScoreAdj; adj != nil {
		plan.Add(nsenter.Op{Code: nsenter.ProcWrite, Text: text("oom_score_adj", strconv.Itoa(*adj)), Flags: nsenter.Self, Why: "setting oom_score_adj"})
	}
	part := f.part(p, nil)
	part.labels(plan)
	enterContainer(plan, namespaces, f.rootfs)
	if namespaces&unix.CLONE_NEWUSER != 0 { // the host's root is nobody in there
		becomeRoot(plan, 0)
	}
	part.environment(plan)
	terminalPart(plan, p, f)
	part.cloexec(plan)
	if namespaces&unix.CLONE_NEWPID != 0 {
		// Last, with nothing of the host's at hand: from here on the container sees it.
		// Besides, an unprivileged caller has the right to the pid namespace only in the
		// user namespace.
		plan.Add(nsenter.Op{Code: nsenter.Drop, Why: "closing what is the host's"})
		plan.Add(nsenter.Op{Code: nsenter.Clone, Why: "going on as a child, in the pid namespace"})
	}
	sessionPart(plan, f)
	controlPart(plan, p)
	if err := executionPart(plan, linux); err != nil {
		return nil, err
	}
	part.attributes(plan)
	part.identity(plan)
	return plan, part.leave(plan)
}

// enterContainer joins the container's namespaces. Without a mount namespace
// among them its root is a directory of the host, rootfs.
func enterContainer(plan *nsenter.Plan, namespaces uint64, rootfs string) {
	if rootfs != "" {
		plan.Add(nsenter.Op{Code: nsenter.Root, Text: text(rootfs), Flags: nsenter.Mounted, Why: "opening the container's root"})
	}
	if namespaces != 0 {
		plan.Add(nsenter.Op{Code: nsenter.SetnsAll, Num: num(namespaces), Why: "joining the container's namespaces"})
	}
	if rootfs != "" {
		plan.Add(nsenter.Op{Code: nsenter.Chroot, Why: "switching to the container's root"})
		return
	}
	plan.Add(nsenter.Op{Code: nsenter.RootHere, Why: "opening the container's root"})
}
