package libcontainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/criu"
	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

// CheckpointOptions are what checkpoint and restore share.
type CheckpointOptions struct {
	Binary          string // criu's
	ImagePath       string
	WorkPath        string // of the log; "": the images'
	ParentPath      string // relative to ImagePath: what a pre-dump left
	LeaveRunning    bool
	PreDump         bool
	TCPEstablished  bool
	TCPSkipInFlight bool
	ExtUnixSockets  bool
	ShellJob        bool
	FileLocks       bool
	LinkRemap       bool
	AutoDedup       bool
	LazyPages       bool
	StatusFD        int // -1: none
	PageServer      string
	PageServerPort  int
	CgroupMode      criu.CgroupMode
	EmptyNamespaces uint32
}

// Files of a checkpoint besides criu's.
const (
	descriptorsFile = "descriptors.json" // stdio, as criu names it; runc's name
	dumpLog         = "dump.log"
	restoreLog      = "restore.log"
)

// Versions of criu from which on something works, as criu.Response has them.
const (
	criuOldest       = 30000
	criuExternalNet  = 31100
	criuFreezerV2    = 31400
	criuExternalPid  = 31500
	criuStatusReady  = 31500
	criuLSM          = 31600
	criuRuntimesConf = "/etc/criu/runc.conf" // settings of hosts for runtimes; runc's name
)

// Checkpoint saves a container's processes to files. Unless they are to go on,
// it then removes the container.
func Checkpoint(ctx context.Context, c *Container, opts CheckpointOptions) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status == Created || status == Stopped {
		return errdefs.FailedPrecondition.Errorf("Container cannot be checkpointed in %s state", status)
	}
	if c.hasNotify() { // its mount is not in the kept config.json
		return errdefs.NotImplemented.Errorf("a container with a NOTIFY_SOCKET cannot be checkpointed")
	}
	if err := c.dump(ctx, &opts); err != nil {
		if status == Running { // a criu that was killed leaves it frozen
			err = errors.Join(err, c.cgroup().Thaw(ctx))
		}
		return err
	}
	if opts.LeaveRunning || opts.PreDump {
		return nil
	}
	return c.delete(ctx, true)
}

// dump has criu save the container.
func (c *Container) dump(ctx context.Context, opts *CheckpointOptions) error {
	version, err := criuVersion(ctx, opts.Binary)
	if err != nil {
		return err
	}
	if err := opts.checkFeatures(ctx); err != nil {
		return err
	}
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	session, err := opts.open(dumpLog)
	if err != nil {
		return err
	}
	defer session.close()
	o := &session.options
	o.Pid, o.Root, o.LeaveRunning, o.LinkRemap = c.State.Pid, c.State.Rootfs, opts.LeaveRunning, opts.LinkRemap
	o.TCPSkipInFlight, o.ParentImage, o.TrackMemory = opts.TCPSkipInFlight, opts.ParentPath, opts.ParentPath != ""
	o.PageServer, o.PageServerPort = opts.PageServer, opts.PageServerPort
	session.configFile(spec.Annotations)
	if err := externalNamespaces(o, spec, version); err != nil {
		return err
	}
	if dir := c.cgroup().FreezerDir(); dir != "" && (len(c.State.Cgroup.V1) > 0 || version >= criuFreezerV2) {
		o.FreezeCgroup = dir
	}
	if opts.LazyPages && opts.StatusFD >= 0 && version < criuStatusReady {
		o.StatusFD = opts.StatusFD
	}
	request := criu.PreDump
	if !opts.PreDump {
		request = criu.Dump
		if err := c.dumpMounts(o, spec); err != nil {
			return err
		}
		descriptors, err := c.externalStdio(o)
		if err != nil {
			return err
		}
		if err := writeJSON(filepath.Join(opts.ImagePath, descriptorsFile), descriptors); err != nil {
			return err
		}
	}
	lock, err := networkLock(ctx, spec)
	if err != nil {
		return err
	}
	err = session.run(ctx, request, opts)
	if lock != nil && (err != nil || opts.LeaveRunning || opts.PreDump) {
		err = errors.Join(err, lock.Reset(context.WithoutCancel(ctx)))
	}
	return err
}

// run starts criu and serves it until the dump is done.
func (s *session) run(ctx context.Context, request criu.Type, opts *CheckpointOptions) error {
	nsenter.Unbind()
	process, err := criu.Start(opts.Binary, nil, s.files)
	if err != nil {
		return err
	}
	defer process.Abort()
	_, err = process.Serve(ctx, &criu.Request{Type: request, Options: &s.options}, func(r *criu.Response, fd int) error {
		slog.Debug("criu: " + r.Script)
		if fd >= 0 {
			unix.Close(fd)
		}
		if r.Script == "status-ready" && opts.StatusFD >= 0 {
			return opts.ready()
		}
		return nil
	})
	if err != nil {
		return s.explain(process, err)
	}
	// After a pre-dump criu waits for the next one, and is not waited for.
	if request == criu.PreDump {
		return nil
	}
	if err := process.Close(); err != nil {
		return s.explain(process, fmt.Errorf("criu failed: %w", err))
	}
	return nil
}

// ready tells --status-fd that the pages can be fetched.
func (o *CheckpointOptions) ready() error {
	_, err := unix.Write(o.StatusFD, []byte{0})
	unix.Close(o.StatusFD)
	o.StatusFD = -1
	if err != nil {
		slog.Warn("can't write \\0 to status fd: " + err.Error())
	}
	return nil
}

// criuVersion asks criu, and so finds out whether it runs at all.
func criuVersion(ctx context.Context, binary string) (int, error) {
	response, err := criu.Ask(ctx, binary, &criu.Request{Type: criu.Version})
	if err != nil {
		return 0, errdefs.FailedPrecondition.Errorf("CRIU version check failed: %w", err)
	}
	if response.Version < criuOldest {
		return 0, errdefs.FailedPrecondition.Errorf("CRIU version %d must be %d or higher", response.Version, criuOldest)
	}
	return response.Version, nil
}

// checkFeatures asks for what the kernel may lack.
func (o *CheckpointOptions) checkFeatures(ctx context.Context) error {
	wanted := criu.Features{MemoryTracking: o.PreDump, LazyPages: o.LazyPages}
	if wanted == (criu.Features{}) {
		return nil
	}
	response, err := criu.Ask(ctx, o.Binary, &criu.Request{Type: criu.FeatureCheck, Features: wanted})
	if err != nil {
		return errdefs.FailedPrecondition.Errorf("CRIU feature check failed: %w", err)
	}
	var missing []string
	if wanted.MemoryTracking && !response.Features.MemoryTracking {
		missing = append(missing, "MemTrack")
	}
	if wanted.LazyPages && !response.Features.LazyPages {
		missing = append(missing, "LazyPages")
	}
	if len(missing) > 0 {
		return errdefs.FailedPrecondition.Errorf("criu is missing features: %v", missing)
	}
	return nil
}

// session is one request to criu and the files that go with it.
type session struct {
	options     criu.Options
	directories []*os.File
	files       []*os.File // criu's, from criu.FirstFD on
	log         string
}

// open opens the directories and fills in what all requests share.
func (o *CheckpointOptions) open(log string) (*session, error) {
	s := &session{options: criu.Options{
		WorkFD: -1, LogFile: log, OrphanPtsMaster: true, CgroupMode: o.CgroupMode, EmptyNamespaces: o.EmptyNamespaces,
		ExtUnixSockets: o.ExtUnixSockets, TCPEstablished: o.TCPEstablished, ShellJob: o.ShellJob,
		FileLocks: o.FileLocks, AutoDedup: o.AutoDedup, LazyPages: o.LazyPages,
	}}
	directory := func(path string) (int, error) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return -1, err
		}
		file, err := os.Open(path)
		if err != nil {
			return -1, err
		}
		s.directories = append(s.directories, file)
		return int(file.Fd()), nil
	}
	var err error
	if s.options.ImagesFD, err = directory(o.ImagePath); err != nil {
		return nil, fmt.Errorf("opening the images' directory: %w", err)
	}
	s.log = filepath.Join(o.ImagePath, log)
	if o.WorkPath != "" {
		s.log = filepath.Join(o.WorkPath, log)
		if s.options.WorkFD, err = directory(o.WorkPath); err != nil {
			s.close()
			return nil, fmt.Errorf("opening the work directory: %w", err)
		}
	}
	// What an earlier attempt wrote there would be taken for this one's.
	if err := os.Remove(s.log); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.close()
		return nil, err
	}
	return s, nil
}

// pass hands a file to criu and returns its number there.
func (s *session) pass(file *os.File) int {
	s.files = append(s.files, file)
	return criu.FirstFD + len(s.files) - 1
}

func (s *session) close() {
	for _, file := range append(s.directories, s.files...) {
		file.Close()
	}
	s.directories, s.files = nil, nil
}

// explain adds criu's own reasons from its log, or what it said without one.
func (s *session) explain(process *criu.Process, err error) error {
	reasons := criu.Reasons(s.log)
	if len(reasons) == 0 {
		reasons = process.Reasons()
	}
	for _, reason := range reasons {
		err = fmt.Errorf("%w\n%s", err, reason)
	}
	if exists(s.log) {
		err = fmt.Errorf("%w\nlog file: %s", err, s.log)
	}
	return err
}

const criuAnnotation = "org.criu.config"

// configFile names the file whose settings win over ours: that of the
// annotation, none if that is empty.
func (s *session) configFile(annotations map[string]string) {
	path, ok := annotations[criuAnnotation]
	if !ok {
		path = criuRuntimesConf
	}
	s.options.ConfigFile = path
}

// namespaceFiles are the namespaces' files in /proc/PID/ns, and names in criu's options.
var namespaceFiles = map[specs.LinuxNamespaceType]string{
	specs.NetworkNamespace: "net", specs.PIDNamespace: "pid", specs.MountNamespace: "mnt", specs.IPCNamespace: "ipc",
	specs.UTSNamespace: "uts", specs.UserNamespace: "user", specs.TimeNamespace: "time",
}

// externalKeys name the namespaces that are not the container's own, in the
// images: restore brings others. The names are runc's.
var externalKeys = map[specs.LinuxNamespaceType]string{
	specs.NetworkNamespace: "extRootNetNS", specs.PIDNamespace: "extRootPidNS",
}

// externalNamespaces keeps joined network and pid namespaces out of the images.
func externalNamespaces(o *criu.Options, spec *specs.Spec, version int) error {
	for _, kind := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.PIDNamespace} {
		ns := namespace(spec, kind)
		if ns == nil || ns.Path == "" {
			continue
		}
		if err := checkExternal(kind, version); err != nil {
			return err
		}
		var found unix.Stat_t
		if err := unix.Stat(ns.Path, &found); err != nil {
			return fmt.Errorf("asking for %s namespace %q: %w", kind, ns.Path, err)
		}
		o.External = append(o.External, namespaceFiles[kind]+"["+strconv.FormatUint(found.Ino, 10)+"]:"+externalKeys[kind])
	}
	return nil
}

func checkExternal(kind specs.LinuxNamespaceType, version int) error {
	if kind == specs.NetworkNamespace && version < criuExternalNet || kind == specs.PIDNamespace && version < criuExternalPid {
		return errdefs.FailedPrecondition.Errorf("criu lacks support for external %s namespaces: version %d is too old", kind, version)
	}
	return nil
}

// externalStdio names the container's stdio for the restore: pipes by their
// name; files and devices that are not in the container's mounts, as the
// host's /dev/null or a log file, by the name that makes criu leave them out.
func (c *Container) externalStdio(o *criu.Options) ([]string, error) {
	process := "/proc/" + strconv.Itoa(c.State.Pid)
	mounts, err := os.ReadFile(process + "/mountinfo")
	if err != nil {
		return nil, err
	}
	list := slices.Clone(c.State.Stdio)
	for fd, was := range list {
		if strings.HasPrefix(was, "pipe:") {
			continue
		}
		name, err := externalFile(process, strconv.Itoa(fd), string(mounts))
		if err != nil {
			return nil, fmt.Errorf("asking for the container's descriptor %d: %w", fd, err)
		}
		if name != "" {
			list[fd] = name
			o.External = append(o.External, name)
		}
	}
	return list, nil
}

// externalFile names a process's descriptor, "file[MOUNT:INODE]", if its mount
// is not one of the process's.
func externalFile(process, fd, mounts string) (string, error) {
	info, err := os.ReadFile(process + "/fdinfo/" + fd)
	if errors.Is(err, os.ErrNotExist) { // closed since
		return "", nil
	}
	if err != nil {
		return "", err
	}
	mount := ""
	for line := range strings.Lines(string(info)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			mount = strings.TrimSpace(id)
		}
	}
	id, err := strconv.Atoi(mount)
	if err != nil {
		return "", errdefs.Internal.Errorf("%s/fdinfo/%s has no mnt_id", process, fd)
	}
	var found unix.Stat_t
	if err := unix.Stat(process+"/fd/"+fd, &found); err != nil {
		return "", err
	}
	own := strings.HasPrefix(mounts, mount+" ") || strings.Contains(mounts, "\n"+mount+" ")
	if kind := found.Mode & unix.S_IFMT; own || kind != unix.S_IFREG && kind != unix.S_IFCHR {
		return "", nil
	}
	return fmt.Sprintf("file[%x:%x]", id, found.Ino), nil
}

// stdio says what our descriptors 0 to 2 are, which become the container's.
func stdio() []string {
	list := make([]string, 3)
	for fd := range list {
		list[fd], _ = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) // closed: ""
	}
	return list
}

func writeJSON(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// cgroupRoots are where criu restores cgroups: where it is itself.
func cgroupRoots(pid int) ([]criu.CgroupRoot, error) {
	paths, err := cgroup.PathsOf(pid)
	if err != nil {
		return nil, err
	}
	var roots []criu.CgroupRoot
	for name, path := range paths {
		for controller := range strings.SplitSeq(name, ",") {
			roots = append(roots, criu.CgroupRoot{Controller: controller, Path: path})
		}
	}
	slices.SortFunc(roots, func(a, b criu.CgroupRoot) int { return strings.Compare(a.Controller, b.Controller) })
	return roots, nil
}
