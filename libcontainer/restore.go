package libcontainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/criu"
	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

// RestoreOptions are what restore takes.
type RestoreOptions struct {
	CreateOptions
	Checkpoint      CheckpointOptions
	Detach          bool
	NoSubreaper     bool
	LSMProfile      string // TYPE:NAME
	LSMMountContext string
}

// Restore makes a container out of a checkpoint, with the bundle's config, and
// lets its processes go on. Attached, it waits for the first of them, deletes
// the container and returns the status.
//
// criu starts in the new container's cgroup, which its children inherit, and
// in a mount namespace of its own: the root must be a mount point for it, and a
// mount made for that cannot be left behind when the namespace ends.
func Restore(ctx context.Context, opts RestoreOptions) (status int, err error) {
	mode := attached
	if opts.Detach {
		mode = detached
	}
	r := &restore{launch: &launch{opts: opts.CreateOptions, mode: mode, console: -1}, with: &opts}
	defer r.undo.OnError(&err)
	defer r.close()
	if err := r.prepareRestore(ctx); err != nil {
		return 0, err
	}
	if mode == detached {
		return 0, r.bring(ctx)
	}
	if !opts.NoSubreaper {
		if err := becomeSubreaper(); err != nil {
			return 0, err
		}
	}
	return r.stay(ctx, func() error { return r.bring(ctx) }, func() error {
		r.undo.Forget()
		return r.remove(ctx)
	})
}

// restore is a launch whose process criu makes.
type restore struct {
	*launch
	with    *RestoreOptions
	session *session
	version int
	lock    *criu.Lock // of a network namespace that is joined; nil without one
	socket  int        // takes the terminal's master; -1 without one
	places  []string   // where each of the spec's mounts is to be
}

// prepareRestore reserves the id and reads bundle and checkpoint.
func (r *restore) prepareRestore(ctx context.Context) (err error) {
	r.socket = -1
	if r.version, err = criuVersion(ctx, r.with.Checkpoint.Binary); err != nil {
		return err
	}
	if err := r.readConfig(); err != nil {
		return err
	}
	if r.container, err = Reserve(r.opts.Root, r.opts.ID); err != nil {
		return err
	}
	directory := r.container.Dir()
	r.undo.Add("remove the container's directory", func(context.Context) error { return os.RemoveAll(directory) })
	r.detectCgroups()
	if err := r.saveConfig(r.config); err != nil {
		return err
	}
	if err := r.decode(); err != nil {
		return err
	}
	if r.opts.Cgroup.Systemd {
		if err := cgroup.CheckUnit(r.spec, r.container.ID, r.opts.Cgroup); err != nil {
			return err
		}
	}
	terminal := r.spec.Process.Terminal
	if err := r.checkTerminal(terminal); err != nil {
		return err
	}
	if terminal {
		if err := r.connectConsole(); err != nil {
			return err
		}
		r.socket = r.owned[len(r.owned)-1]
	}
	return nil
}

func (r *restore) saveConfig(config []byte) error {
	if err := replaceFile(filepath.Join(r.container.Dir(), ConfigFile), config); err != nil {
		return fmt.Errorf("keeping the spec: %w", err)
	}
	return nil
}

// bring has criu restore the processes.
func (r *restore) bring(ctx context.Context) (err error) {
	if err := checkpointThere(r.with.Checkpoint.ImagePath); err != nil {
		return err
	}
	process, err := r.startCriu()
	if r.session != nil {
		defer r.session.close()
	}
	if err != nil {
		return err
	}
	defer process.Abort()
	if err := r.findLock(ctx); err != nil {
		return err
	}
	if err := r.enterCgroup(ctx, process.Pid()); err != nil {
		return err
	}
	response, err := process.Serve(ctx, &criu.Request{Type: criu.Restore, Options: &r.session.options}, func(n *criu.Response, fd int) error {
		return r.notified(ctx, n, fd)
	})
	if err != nil {
		return r.session.explain(process, err)
	}
	if r.child == nil {
		return errdefs.Internal.Errorf("criu restored process %d and never said so", response.Pid)
	}
	if err := process.Close(); err != nil {
		return r.session.explain(process, fmt.Errorf("criu failed: %w", err))
	}
	if r.lock != nil {
		if err := r.lock.Opened(ctx); err != nil {
			return err
		}
	}
	if err := r.container.Publish(); err != nil {
		return err
	}
	if r.opts.PidFile == "" {
		return nil
	}
	if err := writePidFile(r.opts.PidFile, r.child.pid); err != nil {
		return err
	}
	r.undo.Add("remove the pid file", func(context.Context) error { return os.Remove(r.opts.PidFile) })
	return nil
}

// findLock looks after criu's lock, see there.
func (r *restore) findLock(ctx context.Context) (err error) {
	if r.lock, err = networkLock(ctx, r.spec); r.lock == nil {
		return err
	}
	r.undo.Add("take away criu's lock of the network", r.lock.Reset)
	return nil
}

// networkLock is nil unless the spec joins a network namespace.
func networkLock(ctx context.Context, spec *specs.Spec) (*criu.Lock, error) {
	ns := namespace(spec, specs.NetworkNamespace)
	if ns == nil || ns.Path == "" {
		return nil, nil
	}
	return criu.FindLock(ctx, ns.Path)
}

// checkpointThere refuses a checkpoint that is not there, instead of making its directory.
func checkpointThere(images string) error {
	if _, err := os.Stat(images); err != nil {
		return errdefs.NotFound.Errorf("opening the checkpoint: %w", err)
	}
	return nil
}

// options fills in what the spec and the checkpoint say.
func (r *restore) options() error {
	o := &r.session.options
	o.EvasiveDevices, o.RestoreSibling = true, true
	if r.with.LSMProfile != "" && r.version < criuLSM {
		return errdefs.FailedPrecondition.Errorf("--lsm-profile requires at least CRIU 3.16")
	}
	if r.with.LSMMountContext != "" && r.version < criuLSM {
		return errdefs.FailedPrecondition.Errorf("--lsm-mount-context requires at least CRIU 3.16")
	}
	o.LSMProfile, o.LSMMountContext = r.with.LSMProfile, r.with.LSMMountContext
	r.session.configFile(r.spec.Annotations)
	if err := r.joinNamespaces(o); err != nil {
		return err
	}
	return r.inheritStdio(o)
}

// joinNamespaces says which namespaces are not the container's own.
func (r *restore) joinNamespaces(o *criu.Options) error {
	for i := range r.spec.Linux.Namespaces {
		ns := &r.spec.Linux.Namespaces[i]
		switch {
		case ns.Path == "":
		case externalKeys[ns.Type] != "":
			if err := checkExternal(ns.Type, r.version); err != nil {
				return err
			}
			file, err := os.Open(ns.Path)
			if err != nil {
				return errdefs.FailedPrecondition.Errorf("Requested network namespace %v does not exist: %w", ns.Path, err)
			}
			o.InheritFDs = append(o.InheritFDs, criu.InheritFD{Key: externalKeys[ns.Type], FD: r.session.pass(file)})
		case namespaceFiles[ns.Type] == "":
			return errdefs.NotImplemented.Errorf("criu cannot join a %s namespace", ns.Type)
		default:
			o.JoinNamespaces = append(o.JoinNamespaces, criu.Pair{Key: namespaceFiles[ns.Type], Value: ns.Path})
		}
	}
	return nil
}

// inheritStdio puts our stdio in the place of pipes and files from outside that
// the container's were.
func (r *restore) inheritStdio(o *criu.Options) error {
	path := filepath.Join(r.with.Checkpoint.ImagePath, descriptorsFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return errdefs.FailedPrecondition.Errorf("reading the checkpoint's descriptors: %w", err)
	}
	var descriptors []string
	if err := json.Unmarshal(data, &descriptors); err != nil || len(descriptors) > 3 {
		return errdefs.DataLoss.Errorf("reading %s: expected up to three descriptors (%v)", path, err)
	}
	for fd, name := range descriptors {
		if strings.HasPrefix(name, "pipe:") || strings.HasPrefix(name, "file[") {
			o.InheritFDs = append(o.InheritFDs, criu.InheritFD{Key: name, FD: fd})
		}
	}
	return nil
}

// startCriu starts it in a mount namespace of its own, with the container's
// root as a mount point. The thread is spent on it.
func (r *restore) startCriu() (process *criu.Process, err error) {
	stdio := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	if r.spec.Process.Terminal {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer null.Close()
		stdio = []*os.File{null, null, null}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		process, err = r.startInside(stdio)
	}()
	<-done
	return process, err
}

// startInside runs in the new mount namespace. The images' directory is opened
// there, too: criu mounts in it.
func (r *restore) startInside(stdio []*os.File) (*criu.Process, error) {
	root, err := r.mountRoot()
	if err != nil {
		return nil, err
	}
	if err := r.findPlaces(root); err != nil {
		return nil, err
	}
	if r.session, err = r.with.Checkpoint.open(restoreLog); err != nil {
		return nil, err
	}
	r.session.options.Root = root
	if err := r.options(); err != nil {
		return nil, err
	}
	nsenter.Unbind() // criu has what we have, and what it restores has it, too
	return criu.Start(r.with.Checkpoint.Binary, stdio, r.session.files)
}

// mountRoot gives the thread its own mounts and mounts the root. Its parent
// directory is the container's, which nobody mounts over.
func (r *restore) mountRoot() (root string, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return "", fmt.Errorf("making a mount namespace: %w", err)
	}
	// Slaves, not private ones: where the container's mounts were slaves of the
	// host's, criu looks for a group that they can join.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return "", fmt.Errorf("cutting the mount namespace off from the host: %w", err)
	}
	if root, err = filepath.EvalSymlinks(r.container.Dir()); err != nil {
		return "", err
	}
	root = filepath.Join(root, "criu-root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount(r.rootfs, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("mounting the root %q: %w", r.rootfs, err)
	}
	return root, nil
}

// enterCgroup makes the container's cgroup with criu in it.
func (r *restore) enterCgroup(ctx context.Context, pid int) (err error) {
	if r.opts.Cgroup.Systemd {
		r.cgroup, err = cgroup.MakeUnit(ctx, r.layout, r.spec, r.container.ID, r.opts.Cgroup, pid)
	} else {
		r.cgroup, err = cgroup.Make(r.layout, r.spec, r.container.ID, r.opts.Cgroup)
	}
	if r.cgroup != nil { // also if it is there only in part
		r.undo.Add("remove the cgroup", func(ctx context.Context) error {
			return errors.Join(r.cgroup.Kill(ctx), r.cgroup.Remove(ctx))
		})
	}
	if err != nil {
		return notMade(err)
	}
	// As at create: checked first, and a cpuset takes in nobody before it is filled.
	if err := r.cgroup.SetButCPU(r.spec.Linux.Resources); err != nil {
		return fmt.Errorf("setting the cgroup's limits: %w", err)
	}
	if err := r.cgroup.SetCPU(r.spec.Linux.Resources); err != nil {
		return fmt.Errorf("setting the cgroup's limits: %w", err)
	}
	if err := r.cgroup.Add(pid); err != nil {
		return err
	}
	roots, err := cgroupRoots(pid)
	if err != nil {
		return err
	}
	r.session.options.CgroupRoots = roots
	r.restoreMounts()
	return nil
}

// notified does what criu waits for.
func (r *restore) notified(ctx context.Context, n *criu.Response, fd int) error {
	slog.Debug("criu: " + n.Script)
	if fd >= 0 {
		defer unix.Close(fd)
	}
	switch n.Script {
	case "setup-namespaces":
		return r.runCreateHooks(ctx, n.Pid)
	case "orphan-pts-master":
		return r.sendMaster(fd)
	case "network-unlock":
		if r.lock != nil {
			return r.lock.Single(ctx)
		}
	case "post-restore":
		return r.recordRestored(n.Pid)
	}
	return nil
}

// runCreateHooks runs those that set up namespaces, which are new.
func (r *restore) runCreateHooks(ctx context.Context, pid int) error {
	hooks := r.spec.Hooks
	if hooks == nil {
		return nil
	}
	state := &specs.State{
		Version: r.spec.Version, ID: r.container.ID, Status: specs.StateCreating, Pid: pid, Bundle: r.bundle, Annotations: r.spec.Annotations,
	}
	if err := RunHooks(ctx, "prestart", hooks.Prestart, state); err != nil {
		return err
	}
	return RunHooks(ctx, "createRuntime", hooks.CreateRuntime, state)
}

// sendMaster hands the restored terminal's master on.
func (r *restore) sendMaster(fd int) error {
	if fd < 0 {
		return errdefs.Internal.Errorf("criu sent no descriptor of the terminal")
	}
	if r.socket < 0 {
		return errdefs.FailedPrecondition.Errorf("the checkpoint has a terminal, the bundle's config has none")
	}
	if err := unix.Sendmsg(r.socket, []byte("orphan-pts-master"), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("sending the terminal: %w", err)
	}
	return nil
}

// recordRestored writes what later verbs need. The process is our child.
func (r *restore) recordRestored(pid int) error {
	r.child = &stage{pid: pid, socket: -1, memory: -1, self: -1}
	child := r.child
	r.undo.Add("kill the container's process", func(context.Context) error { return child.kill() })
	if err := r.addTimeNamespace(pid); err != nil {
		return err
	}
	return r.record()
}

// addTimeNamespace: criu restores into a time namespace, in which the clocks go
// on where they stood; exec must join it.
func (r *restore) addTimeNamespace(pid int) error {
	if namespace(r.spec, specs.TimeNamespace) != nil {
		return nil
	}
	ours, err := os.Readlink("/proc/self/ns/time")
	if errors.Is(err, os.ErrNotExist) { // before Linux 5.6
		return nil
	}
	if err != nil {
		return err
	}
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/time")
	if err != nil || theirs == ours {
		return err
	}
	r.spec.Linux.Namespaces = append(r.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	config, err := json.Marshal(r.spec)
	if err != nil {
		return err
	}
	return r.saveConfig(config)
}
