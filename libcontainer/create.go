package libcontainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/rootfs"
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
	PidFile       string
	PreserveFDs   int // descriptors from 3 on that the process gets
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
		return nil, startError(err)
	}
	return l.container, nil
}

// DryRun returns the plan that Create would hand to the container's process.
// It makes nothing; the cgroup's files are named as if it were there.
func DryRun(opts CreateOptions) (string, error) {
	l := &launch{opts: opts, mode: waiting, container: &Container{Root: opts.Root, ID: opts.ID}}
	if err := l.readConfig(); err != nil {
		return "", err
	}
	if err := l.decode(); err != nil {
		return "", err
	}
	l.number(l.spec.Process.Terminal)
	l.detectCgroups()
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
	filter    *seccomp.Filter
	plan      *nsenter.Plan
	child     *stage
	born      func() error // waits for the clone under way; nil if there is none
	early     early        // what the clone under way was made for
	fd        descriptors  // numbers in the child
	files     []int        // what the child inherits, by number
	joinFDs   []int        // the cgroup's files among them, in a user namespace
	owned     []int        // ours, closed once the child has them
	console   int          // attached terminal: our end of the console socket, else -1
	undo      errdefs.Undo
}

// newLaunch reserves the id and reads the bundle. If it can tell early enough
// what is to be cloned, the clone is under way when it returns.
func newLaunch(opts CreateOptions, mode mode) (*launch, error) {
	l := &launch{opts: opts, mode: mode, console: -1}
	if err := l.prepare(); err != nil {
		err = errors.Join(err, l.undo.Run())
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *launch) prepare() (err error) {
	if err := l.readConfig(); err != nil {
		return err
	}
	if l.container, err = Reserve(l.opts.Root, l.opts.ID); err != nil {
		return err
	}
	directory := l.container.Dir()
	l.undo.Add("remove the container's directory", func(context.Context) error { return os.RemoveAll(directory) })
	l.detectCgroups()
	if err := l.cloneEarly(); err != nil {
		return err
	}
	if err := l.decode(); err != nil {
		return err
	}
	return l.checkTerminal(l.spec.Process.Terminal)
}

// mode is how the process is started.
type mode int

const (
	waiting  mode = iota // create: it waits for start
	detached             // run --detach
	attached             // run
)

// readConfig reads the bundle's config.json.
func (l *launch) readConfig() (err error) {
	if l.bundle, err = filepath.Abs(l.opts.Bundle); err != nil {
		return err
	}
	path := filepath.Join(l.bundle, ConfigFile)
	l.config, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.NotFound.Coded(errdefs.BundleInvalid, l.bundle, "JSON specification file %s not found", path)
	}
	if err != nil {
		return errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, l.bundle, "%w", err)
	}
	return nil
}

// decode decodes and validates the config.
func (l *launch) decode() error {
	l.spec = new(specs.Spec)
	if err := json.Unmarshal(l.config, l.spec); err != nil {
		return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, specField(err), "parsing %s: %w", filepath.Join(l.bundle, ConfigFile), err)
	}
	if err := validate(l.spec); err != nil {
		return err
	}
	return l.findRoot()
}

// specField names the field that a JSON error is about.
func specField(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return wrong.Field
	}
	return ""
}

func (l *launch) findRoot() error {
	root := l.spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(l.bundle, root)
	}
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		return errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, l.bundle, "invalid rootfs: %w", err)
	}
	found, err := os.Stat(resolved)
	if err != nil || !found.IsDir() {
		return errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, l.bundle, "invalid rootfs: %s is not a directory", root)
	}
	if resolved == "/" {
		return invalid("root.path", "expected a directory below the host's root, got %q", root)
	}
	l.rootfs = resolved
	return nil
}

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
	if err := l.child.begin(l.plan); err != nil {
		return err
	}
	if err := l.record(); err != nil {
		return err
	}
	ready, err := l.child.follow(func(step uint64) error { return l.step(ctx, step) })
	if err != nil {
		return err
	}
	if l.mode == waiting && !ready {
		return l.died()
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
	return errdefs.Internal.Errorf("the container's process ended before it was ready: status %d", exitCode(l.child.status))
}

// prepareFiles makes what the child is to inherit.
func (l *launch) prepareFiles(terminal bool) error {
	l.number(terminal)
	if l.fd.fifo >= 0 {
		if err := l.makeFifo(); err != nil {
			return err
		}
	}
	if l.fd.console >= 0 {
		return l.connectConsole()
	}
	return nil
}

// number gives the child's descriptors their numbers: stdio, those that the
// process is to have, then ours.
func (l *launch) number(terminal bool) {
	l.fd = descriptors{fifo: -1, console: -1, container: -1, firstFree: 3 + l.opts.PreserveFDs + listenFDs()}
	l.files = l.files[:0]
	for fd := range l.fd.firstFree {
		l.files = append(l.files, fd)
	}
	next := l.fd.firstFree
	if l.mode == waiting {
		l.fd.fifo = next
		next++
	}
	if terminal {
		l.fd.console = next
	}
}

// inherit appends a descriptor of ours to those that the child gets.
func (l *launch) inherit(fd int) {
	l.files = append(l.files, fd)
	l.owned = append(l.owned, fd)
}

// makeFifo makes exec.fifo and opens both its ends for the child: while it
// lives the fifo has a reader, which is how Start knows.
func (l *launch) makeFifo() error {
	path := filepath.Join(l.container.Dir(), FifoFile)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	l.inherit(fd)
	return nil
}

// cloneEarly starts the clone if config.json says enough at a glance. On v2
// the cgroup must be there first, to be cloned into.
func (l *launch) cloneEarly() error {
	e, ok := readEarly(l.config)
	if !ok || l.layout.Mode == cgroup.V2 {
		return nil
	}
	if err := l.prepareFiles(e.terminal && (l.mode == attached || l.opts.ConsoleSocket != "")); err != nil {
		return err
	}
	l.early = e
	l.clone(birth{files: l.files, cloneFlags: newNamespaces(e.namespaces), pidFD: -1, cgroupFD: -1}, func() {})
	return nil
}

// clone starts the clone in the background; l.born waits for it.
func (l *launch) clone(b birth, done func()) {
	born := make(chan error, 1)
	go func() {
		var err error
		l.child, err = spawn(b)
		done()
		born <- err
	}()
	l.born = sync.OnceValue(func() error { return <-born })
	l.undo.Add("kill the container's process", func(context.Context) error {
		if l.born() != nil {
			return nil
		}
		return l.child.kill()
	})
}

// cloneAndCompile overlaps the clone with our own work on cgroup and plan.
func (l *launch) cloneAndCompile() error {
	if l.born != nil && !l.early.agrees(l.spec) {
		return errdefs.Internal.Errorf("config.json: expected each key of process and linux once and in its own case")
	}
	if l.born == nil {
		if err := l.cloneLate(); err != nil {
			return err
		}
	}
	failed := l.work()
	if err := l.born(); err != nil {
		return errors.Join(err, failed)
	}
	return failed
}

// cloneLate starts the clone with all that the decoded spec says.
func (l *launch) cloneLate() error {
	if err := l.prepareFiles(l.spec.Process.Terminal); err != nil {
		return err
	}
	if user := private(l.spec, specs.UserNamespace); user || l.layout.Mode == cgroup.V2 {
		if err := l.makeCgroup(); err != nil {
			return err
		}
		if err := l.openJoinFiles(user); err != nil {
			return err
		}
	}
	b, done, err := l.birth()
	if err != nil {
		done()
		return err
	}
	l.clone(b, done)
	return nil
}

// openJoinFiles opens for the child what the root of a user namespace cannot.
func (l *launch) openJoinFiles(user bool) error {
	if !user {
		return nil
	}
	for _, file := range l.cgroup.JoinFiles() {
		fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", file, err)
		}
		l.joinFDs = append(l.joinFDs, len(l.files))
		l.inherit(fd)
	}
	return nil
}

// adjustOOM does for a process in a user namespace what it may not itself.
func (l *launch) adjustOOM() error {
	adj := l.spec.Process.OOMScoreAdj
	if adj == nil || !private(l.spec, specs.UserNamespace) {
		return nil
	}
	file := fmt.Sprintf("/proc/%d/oom_score_adj", l.child.pid)
	if err := os.WriteFile(file, []byte(strconv.Itoa(*adj)), 0); err != nil {
		return fmt.Errorf("setting oom_score_adj: %w", err)
	}
	return nil
}

// work is what the parent does while the child is being cloned.
func (l *launch) work() error {
	if l.cgroup == nil {
		if err := l.makeCgroup(); err != nil {
			return err
		}
	}
	if err := l.compileFilter(); err != nil {
		return err
	}
	return l.compile()
}

// compileFilter compiles the seccomp profile, if there is one.
func (l *launch) compileFilter() error {
	profile := l.spec.Linux.Seccomp
	if profile == nil {
		return nil
	}
	filter, err := seccomp.Compile(profile)
	if err != nil {
		return fmt.Errorf("compiling the seccomp filter: %w", err)
	}
	if filter.Notify {
		return unsupported("linux.seccomp: SCMP_ACT_NOTIFY")
	}
	l.filter = &filter
	return nil
}

// makeCgroup makes the cgroup and sets its limits.
func (l *launch) makeCgroup() (err error) {
	l.cgroup, err = cgroup.Make(l.layout, l.spec, l.container.ID, l.opts.Cgroup)
	if err != nil {
		return fmt.Errorf("making the cgroup: %w", err)
	}
	made := l.cgroup
	l.undo.Add("remove the cgroup", func(ctx context.Context) error { return made.Remove(ctx) })
	if l.spec.Linux.Resources == nil {
		return nil
	}
	if err := l.cgroup.Set(l.spec.Linux.Resources); err != nil {
		return fmt.Errorf("setting the cgroup's limits: %w", err)
	}
	return nil
}

// birth says what the process is cloned with: all new namespaces at once.
func (l *launch) birth() (birth, func(), error) {
	b := birth{files: l.files, pidFD: -1, cgroupFD: -1}
	var open []int
	closeAll := func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}
	b.cloneFlags = newNamespaces(l.spec.Linux.Namespaces)
	if ns := namespace(l.spec, specs.PIDNamespace); ns != nil && ns.Path != "" {
		fd, err := unix.Open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return b, closeAll, fmt.Errorf("joining pid namespace %q: %w", ns.Path, err)
		}
		b.pidFD = fd
		open = append(open, fd)
	}
	if l.layout.Mode == cgroup.V2 {
		fd, err := unix.Open(l.cgroup.Dir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return b, closeAll, fmt.Errorf("opening the cgroup: %w", err)
		}
		b.cgroupFD = fd
		open = append(open, fd)
	}
	b.uids, b.gids = idMaps(l.spec.Linux.UIDMappings), idMaps(l.spec.Linux.GIDMappings)
	return b, closeAll, nil
}

// newNamespaces are the flags of those that clone makes. The cgroup namespace
// is not among them: it is made inside the cgroup.
func newNamespaces(list []specs.LinuxNamespace) uintptr {
	var flags uintptr
	for _, ns := range list {
		if ns.Path == "" && ns.Type != specs.CgroupNamespace {
			flags |= uintptr(cloneFlags[ns.Type])
		}
	}
	return flags
}

func idMaps(list []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	maps := make([]syscall.SysProcIDMap, 0, len(list))
	for _, m := range list {
		maps = append(maps, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
	}
	return maps
}

// compile makes the plan out of spec and host.
func (l *launch) compile() error {
	f := facts{
		root: rootfs.Host{
			Bundle: l.bundle, Rootfs: l.rootfs, NoPivot: l.opts.NoPivot,
			CgroupMode: l.layout.Mode, Hierarchies: l.layout.Hierarchies(),
			Kcore: exists("/proc/kcore"), IsDirectory: isDirectory, IsProc: isProc,
		},
		id: l.container.ID, fd: l.fd, joinFDs: l.joinFDs, filter: l.filter, keyring: !l.opts.NoNewKeyring,
	}
	cg := l.cgroup
	if cg == nil { // a dry run
		cg = cgroup.At(cgroup.Locate(l.layout, l.spec, l.container.ID))
	}
	f.root.Cgroup, f.joinFiles = cg.Location(), cg.JoinFiles()
	if n := listenFDs(); n > 0 {
		l.spec.Process.Env = append(l.spec.Process.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	}
	var err error
	if f.available, err = ownCapabilities(); err != nil {
		return err
	}
	if f.apparmor, err = apparmorFor(l.spec.Process); err != nil {
		return err
	}
	l.plan, err = compilePlan(l.spec, &f)
	if err == nil && slog.Default().Enabled(context.Background(), slog.LevelDebug) {
		slog.Debug("plan:\n" + l.plan.String())
	}
	return err
}

func (l *launch) detectCgroups() {
	layout, err := cgroup.Detect()
	if err != nil {
		slog.Debug("no cgroups: " + err.Error())
	}
	l.layout = layout
}

// record writes what later verbs need. It runs while the child applies its
// plan.
func (l *launch) record() error {
	start, err := ProcessStart(l.child.pid)
	if err != nil {
		return fmt.Errorf("reading the start time of process %d: %w", l.child.pid, err)
	}
	l.container.State = State{
		OCIVersion: l.spec.Version, ID: l.container.ID, Bundle: l.bundle, Rootfs: l.rootfs,
		Pid: l.child.pid, PidStart: start, Created: time.Now().UTC(), Annotations: l.spec.Annotations,
		Cgroup: l.cgroup.Location(),
	}
	if err := os.WriteFile(filepath.Join(l.container.Dir(), ConfigFile), l.config, 0o600); err != nil {
		return fmt.Errorf("keeping the spec: %w", err)
	}
	return l.container.Save()
}

// step runs the hooks that the child waits for.
func (l *launch) step(ctx context.Context, step uint64) error {
	hooks := l.spec.Hooks
	switch step {
	case stepCreate:
		creating := l.container.hookState(specs.StateCreating)
		if err := RunHooks(ctx, "prestart", hooks.Prestart, creating); err != nil { //nolint:staticcheck // deprecated, still in use
			return err
		}
		if err := RunHooks(ctx, "createRuntime", hooks.CreateRuntime, creating); err != nil {
			return err
		}
		return l.runInside(ctx, "createContainer", hooks.CreateContainer, creating)
	case stepStart:
		return l.runInside(ctx, "startContainer", hooks.StartContainer, l.container.hookState(specs.StateCreated))
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

// close drops descriptors. The process lives on its own.
func (l *launch) close() {
	if l.born != nil {
		l.born() //nolint:errcheck // it has been handled, or its error joined
	}
	for _, fd := range l.owned {
		unix.Close(fd)
	}
	l.owned = nil
	if l.child != nil {
		l.child.close()
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func isDirectory(path string) (bool, error) {
	found, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return found.IsDir(), nil
}

func isProc(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
}

// ownCapabilities are those that the runtime can give: its permitted set.
func ownCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("reading the runtime's capabilities: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// apparmorFor reports whether a profile is to be set: asked for, and possible.
func apparmorFor(p *specs.Process) (bool, error) {
	if p.ApparmorProfile == "" || p.ApparmorProfile == "unconfined" {
		return false, nil
	}
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(enabled), "Y") {
		return false, errdefs.FailedPrecondition.Coded(errdefs.SpecInvalid, "process.apparmorProfile",
			"process.apparmorProfile: apparmor: config provided but apparmor not supported")
	}
	return true, nil
}
