package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/netdevice"
	"github.com/engined/engined/libcontainer/resctrl"
	"github.com/engined/engined/libcontainer/seccomp"
	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

// CreateOptions are what create and run take besides the bundle's spec.
type CreateOptions struct {
	Root          string // of all containers
	ID            string
	Bundle        string
	ConsoleSocket string // takes the terminal's master
	PidfdSocket   string // takes a pidfd of the process
	PidFile       string
	NotifySocket  string // of the host, which hears when the container is ready; restore has none
	PreserveFDs   int    // descriptors from 3 on that the process gets
	NoPivot       bool
	NoNewKeyring  bool
	Cgroup        cgroup.Options
}

// Create makes a container whose process waits for Start.
func Create(ctx context.Context, opts CreateOptions) (_ *Container, err error) {
	l, err := newLaunch(opts, waiting)
	if err != nil {
		return nil, err
	}
	defer l.undo.OnError(&err)
	defer l.close()
	if err := l.bring(ctx); err != nil {
		return nil, startError(l.starved(err))
	}
	return l.container, nil
}

// DryRun returns the plan that Create would hand to the container's process.
// It makes nothing; the cgroup's files are named as if it were there.
func DryRun(opts CreateOptions) (string, error) {
	root, err := filepath.Abs(opts.Root)
	if err != nil {
		return "", err
	}
	l := &launch{opts: opts, mode: waiting, user: theCaller(), container: &Container{Root: root, ID: opts.ID}}
	if err := l.readConfig(); err != nil {
		return "", err
	}
	if err := l.decode(); err != nil {
		return "", err
	}
	l.mountNotify()
	l.numberTrees(l.number(l.spec.Process.Terminal))
	l.detectCgroups()
	if profile := seccompOf(l.spec); profile != nil {
		filter, err := seccomp.Compile(profile) // the cache would be written
		if err != nil {
			return "", notCompiled(err)
		}
		l.filter = &filter
	}
	if err := l.compile(); err != nil {
		return "", err
	}
	return l.plan.String(), nil
}

// startError words a failure of a container's first process as runc does.
func startError(err error) error {
	return fmt.Errorf("unable to start container process: %w", err)
}

// launch is one container on its way from a bundle to a process. Its undo
// stack holds everything made so far; each error path runs it.
type launch struct {
	opts      CreateOptions
	mode      mode
	spec      *specs.Spec
	config    []byte // config.json, verbatim
	bundle    string // absolute
	rootfs    string // absolute, no links
	container *Container
	layout    cgroup.Layout
	cgroup    *cgroup.Cgroup
	begun     bool // v1's part of it is yet to be made
	below     bool // exec: the cgroup is one that the caller named
	resctrl   resctrl.Group
	devices   *netdevice.Moved
	notify    *notifySocket // run with a socket to notify
	user      caller
	filter    *seccomp.Filter
	plan      *nsenter.Plan
	child     *stage
	hooked    bool        // hooks have begun: those of poststop are due, too (runtime.md, lifecycle)
	early     *early      // what an early clone was made for; nil: there was none
	unborn    error       // why that has failed
	fd        descriptors // numbers in the child
	files     []int       // what the child inherits, by number
	joinFDs   []int       // the cgroup's files among them, in a user namespace
	trees     map[int]int // the sources of binds among them, by the mount's index
	owned     []int       // ours, closed once the child has them
	console   int         // attached terminal: our end of the console socket, else -1
	state     int         // with startContainer hooks: the file with their input, else 0
	undo      errdefs.Undo
}

// newLaunch reserves the id and reads the bundle. If it can tell early enough
// what is to be cloned, the child has begun when it returns.
func newLaunch(opts CreateOptions, mode mode) (*launch, error) {
	l := &launch{opts: opts, mode: mode, console: -1, user: theCaller()}
	if err := l.prepare(); err != nil {
		err = errors.Join(err, l.undo.Run())
		l.close()
		return nil, err
	}
	return l, nil
}

// prepare is newLaunch's work; the caller undoes what it left.
func (l *launch) prepare() (err error) {
	if err := l.readConfig(); err != nil {
		return err
	}
	failpoint.At("launch-config-read")
	if l.container, err = Reserve(l.opts.Root, l.opts.ID); err != nil {
		return err
	}
	failpoint.At("launch-reserved")
	directory := l.container.Dir()
	l.undo.Add("remove the container's directory", func(context.Context) error { return os.RemoveAll(directory) })
	l.undo.Add("run poststop hooks", func(ctx context.Context) error {
		if l.hooked { // which take the time that they take
			l.container.poststop(context.WithoutCancel(ctx))
		}
		return nil
	})
	// Before the cgroup is made: delete --force finds it by this copy.
	if err := os.WriteFile(filepath.Join(directory, ConfigFile), l.config, 0o600); err != nil {
		return fmt.Errorf("keeping the spec: %w", err)
	}
	failpoint.At("launch-config-kept")
	l.detectCgroups()
	if err := l.cloneEarly(); err != nil {
		return err
	}
	failpoint.At("launch-clone-begun")
	if err := l.decode(); err != nil {
		return err
	}
	if l.opts.Cgroup.Systemd {
		if err := cgroup.CheckUnit(l.spec, l.container.ID, l.opts.Cgroup); err != nil {
			return err
		}
	}
	if err := l.checkTerminal(l.spec.Process.Terminal); err != nil {
		return err
	}
	if err := l.makeNotify(); err != nil {
		return err
	}
	return l.makeResctrl()
}

// mode is how the process is started.
type mode int

const (
	waiting  mode = iota // create: it waits for start
	detached             // run --detach
	attached             // run
)

// checkTerminal: a terminal needs somebody to take it, and a socket to take
// one needs a terminal. The texts are runc's.
func (l *launch) checkTerminal(terminal bool) error {
	socket := l.opts.ConsoleSocket != ""
	switch {
	case terminal && l.mode != attached && !socket:
		return errdefs.InvalidArgument.Errorf("cannot allocate tty if ocirun will detach without setting console socket")
	case socket && (l.mode == attached || !terminal):
		return errdefs.InvalidArgument.Errorf("cannot use console socket if ocirun will not detach or allocate tty")
	}
	return nil
}

// bring has the process started and follows it until it is ready, or gone on
// to execve.
func (l *launch) bring(ctx context.Context) error {
	if err := l.cloneAndCompile(); err != nil {
		return err
	}
	if err := l.adjustOOM(); err != nil {
		return err
	}
	if err := l.raiseLimits(); err != nil {
		return err
	}
	if err := l.child.begin(l.plan); err != nil {
		return err
	}
	if l.limitsLater(l.cgroup) {
		if err := l.setCPU(); err != nil {
			return err
		}
		if err := l.child.goOn(); err != nil {
			return err
		}
	}
	if !staged(l.spec, l.user) { // else the process is yet to be born
		if err := l.child.born(); err != nil {
			return err
		}
		if err := l.record(); err != nil {
			return err
		}
	}
	end, err := l.child.follow(duties{
		step:     func(step uint64) error { return l.step(ctx, step) },
		moved:    l.record,
		listener: l.listener(specs.StateCreating),
	})
	if err != nil {
		return err
	}
	if end == lost || l.mode == waiting && end != ready {
		return l.died()
	}
	l.devices.Keep()
	failpoint.At("launch-followed")
	if err := l.container.Publish(); err != nil {
		return err
	}
	if l.opts.PidFile == "" {
		return nil
	}
	if err := writePidFile(l.opts.PidFile, l.child.pid); err != nil {
		return err
	}
	l.undo.Add("remove the pid file", func(context.Context) error { return os.Remove(l.opts.PidFile) })
	return nil
}

// died says how the child ended without a word.
func (l *launch) died() error {
	if err := l.child.kill(); err != nil {
		return err
	}
	return errdefs.Internal.Errorf("the container's process ended before it had executed its command: status %d", exitCode(l.child.status))
}

// starved says what is behind a failed start if the child ended without a word and the
// kernel has killed for want of memory in the cgroup. The text is runc's.
func (l *launch) starved(failed error) error {
	if l.child == nil || !l.child.silent || l.cgroup == nil {
		return failed
	}
	if kills, err := l.cgroup.OOMKills(); err != nil || kills == 0 {
		return failed
	}
	return errdefs.ResourceExhausted.Coded(errdefs.OOM, l.container.ID, "container init was OOM-killed (memory limit too low?): %w", failed)
}

// work is what the parent does while the child begins.
func (l *launch) work() error {
	if err := l.makeLate(); err != nil {
		return err
	}
	// Also without resources: a container never has more than the default devices.
	if err := l.cgroup.SetButCPU(l.spec.Linux.Resources); err != nil {
		return fmt.Errorf("setting the cgroup's limits: %w", err)
	}
	if !l.limitsLater(l.cgroup) {
		if err := l.setCPU(); err != nil {
			return err
		}
	}
	failpoint.At("launch-cgroup-set")
	if err := l.compileFilter(); err != nil {
		return err
	}
	if err := l.mountRoot(); err != nil {
		return err
	}
	return l.compile()
}

// setCPU gives the cgroup its processors.
func (l *launch) setCPU() error {
	if err := l.cgroup.SetCPU(l.spec.Linux.Resources); err != nil {
		return fmt.Errorf("setting the cgroup's limits: %w", err)
	}
	failpoint.At("launch-cpu-set")
	return nil
}

// compileFilter compiles the seccomp profile, if there is one.
func (l *launch) compileFilter() error {
	profile := seccompOf(l.spec)
	if profile == nil {
		return nil
	}
	filter, err := seccomp.Cached(profile, SeccompCache(l.container.Root))
	if err != nil {
		return notCompiled(err)
	}
	l.filter = &filter
	failpoint.At("launch-filter-compiled")
	return nil
}

// seccompOf returns the profile. One that says nothing is none, as in runc.
func seccompOf(spec *specs.Spec) *specs.LinuxSeccomp {
	profile := spec.Linux.Seccomp
	if profile != nil && profile.DefaultAction == "" && len(profile.Syscalls) == 0 {
		return nil
	}
	return profile
}

func notCompiled(err error) error { return fmt.Errorf("compiling the seccomp filter: %w", err) }

// beginCgroup makes what of the cgroup the process is born in.
func (l *launch) beginCgroup(spec *specs.Spec) (err error) {
	l.cgroup, err = cgroup.Begin(l.layout, spec, l.container.ID, l.opts.Cgroup)
	if err != nil {
		return notMade(err)
	}
	if l.cgroup == nil { // it was there
		return l.makeCgroup(spec)
	}
	l.begun = true
	failpoint.At("launch-cgroup-begun")
	l.undo.Add("remove the cgroup", l.removeCgroup)
	return nil
}

// makeCgroup makes the cgroup that spec names.
func (l *launch) makeCgroup(spec *specs.Spec) (err error) {
	l.cgroup, err = cgroup.Make(l.layout, spec, l.container.ID, l.opts.Cgroup)
	if err != nil {
		return notMade(err)
	}
	failpoint.At("launch-cgroup-made")
	l.undo.Add("remove the cgroup", l.removeCgroup)
	return nil
}

// makeLate makes what is not there of the cgroup. systemd makes it with the
// process in it, which then need not join.
func (l *launch) makeLate() (err error) {
	switch {
	case l.begun:
		if err := l.cgroup.Finish(l.layout, l.spec, l.container.ID, l.opts.Cgroup); err != nil {
			return notMade(err)
		}
		failpoint.At("launch-cgroup-made")
		return nil
	case l.cgroup != nil:
		return nil
	case !l.opts.Cgroup.Systemd:
		return l.makeCgroup(l.spec)
	}
	if err := l.child.born(); err != nil { // systemd would only say that there is no such process
		return err
	}
	l.cgroup, err = cgroup.MakeUnit(context.Background(), l.layout, l.spec, l.container.ID, l.opts.Cgroup, l.child.pid)
	if l.cgroup != nil { // also if it is there only in part
		l.undo.Add("remove the cgroup", l.removeCgroup)
	}
	if err != nil {
		return notMade(err)
	}
	return nil
}

func notMade(err error) error { return fmt.Errorf("making the cgroup: %w", err) }

func (l *launch) removeCgroup(ctx context.Context) error {
	if err := l.killChild(); err != nil { // it may be in there already
		return err
	}
	if l.hooked { // without a pid namespace what they left lives on
		if err := l.cgroup.Kill(ctx); err != nil {
			return err
		}
	}
	return l.cgroup.Remove(ctx)
}

// record writes what later verbs need. It runs while the child applies its
// plan.
func (l *launch) record() error {
	start, err := ProcessStart(l.child.pid)
	if err != nil {
		return fmt.Errorf("reading the start time of process %d: %w", l.child.pid, err)
	}
	l.container.State = State{
		ID: l.container.ID, Bundle: l.bundle, Rootfs: l.rootfs,
		Pid: l.child.pid, PidStart: start, Created: time.Now().UTC(), Annotations: l.spec.Annotations,
		Cgroup: l.cgroup.Location(), Resctrl: l.resctrl, Stdio: stdio(), NoNewKeyring: l.opts.NoNewKeyring,
	}
	if l.state > 0 { // before anybody finds the container and starts it
		if err := l.tellHooks(); err != nil {
			return err
		}
	}
	if err := l.container.Save(); err != nil {
		return err
	}
	failpoint.At("launch-state-saved")
	return l.sendPidfd()
}

// step does what the child waits for.
func (l *launch) step(ctx context.Context, step uint64) error {
	hooks := l.spec.Hooks
	l.hooked = l.hooked || step == stepCreate || step == stepRecorded
	switch step {
	case stepMaps:
		return l.writeMaps()
	case stepTime:
		return l.writeTimeOffsets()
	case stepDevices:
		return l.moveDevices()
	case stepCreate:
		// prestart hooks are of the time when they ran at start (config.md
		// of 1.0), and are told so.
		creating, created := l.container.hookState(specs.StateCreating), l.container.hookState(specs.StateCreated)
		if err := RunHooks(ctx, "prestart", hooks.Prestart, created); err != nil {
			return err
		}
		failpoint.At("launch-prestart-ran")
		if err := RunHooks(ctx, "createRuntime", hooks.CreateRuntime, creating); err != nil {
			return err
		}
		failpoint.At("launch-create-runtime-ran")
		return l.runInside(ctx, hooks.CreateContainer, creating)
	case stepRecorded: // or this would not be answered
		return nil
	}
	return errdefs.Internal.Errorf("unknown step %d", step)
}

// namespaces are those that are not the runtime's.
func (l *launch) namespaces() uint64 { return namespacesOf(l.spec) }

func namespacesOf(spec *specs.Spec) uint64 {
	var flags uint64
	for _, ns := range spec.Linux.Namespaces {
		flags |= cloneFlags[ns.Type]
	}
	return flags
}

// closeOwned drops what the child has by now.
func (l *launch) closeOwned() {
	for _, fd := range l.owned {
		unix.Close(fd)
	}
	l.owned = nil
}

// close drops descriptors. The process lives on its own.
func (l *launch) close() {
	l.closeOwned()
	l.notify.close()
	if l.state > 0 {
		unix.Close(l.state)
	}
	if l.child != nil {
		l.child.close()
	}
}
