package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/libcontainer/criu"
	"github.com/engined/engined/proto/errdefs"
)

var checkpointCommand = command{
	name: "checkpoint", args: "<container-id>", min: 1, max: 1,
	usage:       "checkpoint a running container",
	description: "The checkpoint command saves the state of the container instance.",
	bind: func(f *flags) action {
		shared := bindCheckpoint(f, "path for saving criu image files")
		parent := f.text("parent-path", "", "", "path for previous criu image files in pre-dump")
		leaveRunning := f.flag("leave-running", "", "leave the process running after checkpointing")
		skip := f.flag("tcp-skip-in-flight", "", "skip in-flight tcp connections")
		linkRemap := f.flag("link-remap", "", "allow one to link unlinked files back when possible")
		statusFD := f.number("status-fd", "", -1, "criu writes \\0 to this FD once lazy-pages is ready")
		server := f.text("page-server", "", "", "ADDRESS:PORT of the page server")
		preDump := f.flag("pre-dump", "", "dump container's memory information only, leave the container running after this")
		return func(c *call) error {
			warnRootless(c.globals, "checkpoint")
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			opts, err := shared.of(c)
			if err != nil {
				return err
			}
			opts.LeaveRunning, opts.PreDump, opts.TCPSkipInFlight, opts.LinkRemap = *leaveRunning, *preDump, *skip, *linkRemap
			if opts.StatusFD, err = statusFile(*statusFD, opts.LazyPages); err != nil {
				return err
			}
			if opts.ParentPath, err = parentPath(opts.ImagePath, *parent); err != nil {
				return err
			}
			if opts.PageServer, opts.PageServerPort, err = pageServer(*server); err != nil {
				return err
			}
			return libcontainer.Checkpoint(context.Background(), container, opts)
		}
	},
}

func warnRootless(g *globals, verb string) {
	if rootless, err := g.isRootless(); err == nil && rootless {
		slog.Warn("ocirun " + verb + " is untested with rootless containers")
	}
}

// checkpointFlags are the options that checkpoint and restore share.
type checkpointFlags struct {
	imagePath, workPath, cgroups                                *string
	tcp, unixSockets, shellJob, fileLocks, autoDedup, lazyPages *bool
	emptyNS                                                     *[]string
}

func bindCheckpoint(f *flags, imageUsage string) checkpointFlags {
	return checkpointFlags{
		imagePath:   f.text("image-path", "", "", imageUsage),
		workPath:    f.text("work-path", "", "", "path for saving work files and logs"),
		tcp:         f.flag("tcp-established", "", "allow open tcp connections"),
		unixSockets: f.flag("ext-unix-sk", "", "allow external unix sockets"),
		shellJob:    f.flag("shell-job", "", "allow shell jobs"),
		lazyPages:   f.flag("lazy-pages", "", "use userfaultfd to lazily restore memory pages"),
		fileLocks:   f.flag("file-locks", "", "handle file locks, for safety"),
		cgroups:     f.text("manage-cgroups-mode", "", "", "cgroups mode: soft|full|strict|ignore (default: soft)"),
		emptyNS:     f.list("empty-ns", "", "create a namespace, but don't restore its properties"),
		autoDedup:   f.flag("auto-dedup", "", "enable auto deduplication of memory images"),
	}
}

// cgroupModes are the words of --manage-cgroups-mode.
var cgroupModes = map[string]criu.CgroupMode{
	"": criu.CgroupSoft, "soft": criu.CgroupSoft, "full": criu.CgroupFull, "strict": criu.CgroupStrict, "ignore": criu.CgroupIgnore,
}

// of returns the options of one call.
func (f checkpointFlags) of(c *call) (libcontainer.CheckpointOptions, error) {
	opts := libcontainer.CheckpointOptions{
		Binary: c.criu, ImagePath: *f.imagePath, WorkPath: *f.workPath, StatusFD: -1,
		TCPEstablished: *f.tcp, ExtUnixSockets: *f.unixSockets, ShellJob: *f.shellJob,
		FileLocks: *f.fileLocks, AutoDedup: *f.autoDedup, LazyPages: *f.lazyPages,
		EmptyNamespaces: unix.CLONE_NEWNET, // its devices are not the runtime's
	}
	if opts.ImagePath == "" {
		opts.ImagePath = "checkpoint"
	}
	var known bool
	if opts.CgroupMode, known = cgroupModes[*f.cgroups]; !known {
		return opts, errdefs.InvalidArgument.Errorf("Invalid manage-cgroups-mode value")
	}
	for _, name := range *f.emptyNS {
		if name != "network" {
			return opts, errdefs.InvalidArgument.Errorf("namespace %q is not supported", name)
		}
	}
	return opts, nil
}

// statusFile checks --status-fd, which counts with --lazy-pages alone.
func statusFile(fd int, lazyPages bool) (int, error) {
	if fd == -1 || !lazyPages {
		return -1, nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return -1, errdefs.InvalidArgument.Errorf("invalid --status-fd argument %d: %w", fd, err)
	}
	if mode := flags & unix.O_ACCMODE; mode != unix.O_WRONLY && mode != unix.O_RDWR {
		return -1, errdefs.InvalidArgument.Errorf("invalid --status-fd argument %d: not writable", fd)
	}
	return fd, nil
}

// parentPath checks --parent-path, which counts from the images.
func parentPath(images, parent string) (string, error) {
	if parent == "" {
		return "", nil
	}
	if filepath.IsAbs(parent) {
		return "", errdefs.InvalidArgument.Errorf("--parent-path must be relative")
	}
	found, err := os.Stat(filepath.Join(images, parent))
	if err == nil && !found.IsDir() {
		err = &os.PathError{Op: "stat", Path: filepath.Join(images, parent), Err: unix.ENOTDIR}
	}
	if err != nil {
		return "", errdefs.InvalidArgument.Errorf("invalid --parent-path: %w", err)
	}
	return parent, nil
}

// pageServer splits ADDRESS:PORT; an IPv6 address stands in brackets.
func pageServer(text string) (address string, port int, err error) {
	if text == "" {
		return "", 0, nil
	}
	at := strings.LastIndexByte(text, ':')
	if at <= 0 || at == len(text)-1 {
		return "", 0, errdefs.InvalidArgument.Errorf("Use --page-server ADDRESS:PORT to specify page server")
	}
	address = strings.TrimSuffix(strings.TrimPrefix(text[:at], "["), "]")
	if port, err = strconv.Atoi(text[at+1:]); err != nil || port < 1 || port > 65535 {
		return "", 0, errdefs.InvalidArgument.Errorf("Invalid port number")
	}
	return address, port, nil
}
