package main

import (
	"context"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/libcontainer/cgroup"
)

var restoreCommand = command{
	name: "restore", args: "<container-id>", min: 1, max: 1,
	usage:       "restore a container from a previous checkpoint",
	description: "Restores the saved state of the container instance that was previously saved\nusing the ocirun checkpoint command.",
	bind: func(f *flags) action {
		socket := f.text("console-socket", "", "", "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal")
		shared := bindCheckpoint(f, "path to criu image files for restoring")
		bundle := f.text("bundle", "b", "", "path to the root of the bundle directory")
		detach := f.flag("detach", "d", "detach from the container's process")
		pidFile := f.text("pid-file", "", "", "specify the file to write the process id to")
		noSubreaper := f.flag("no-subreaper", "", "disable the use of the subreaper used to reap reparented processes")
		noPivot := f.flag("no-pivot", "", "do not use pivot root to jail process inside rootfs.  This should be used whenever the rootfs is on top of a ramdisk")
		profile := f.text("lsm-profile", "", "", "Specify an LSM profile to be used during restore in the form of TYPE:NAME.")
		mountContext := f.text("lsm-mount-context", "", "", "Specify an LSM mount context to be used during restore.")
		return func(c *call) error {
			warnRootless(c.globals, "restore")
			rootless, err := c.isRootless()
			if err != nil {
				return err
			}
			checkpoint, err := shared.of(c)
			if err != nil {
				return err
			}
			status, err := libcontainer.Restore(context.Background(), libcontainer.RestoreOptions{
				CreateOptions: libcontainer.CreateOptions{
					Root: c.root, ID: c.args[0], Bundle: *bundle, ConsoleSocket: *socket, PidFile: *pidFile, NoPivot: *noPivot,
					Cgroup: cgroup.Options{Systemd: c.systemdCgroup, Rootless: rootless},
				},
				Checkpoint: checkpoint, Detach: *detach, NoSubreaper: *noSubreaper,
				LSMProfile: *profile, LSMMountContext: *mountContext,
			})
			if err != nil {
				return err
			}
			return asExit(status)
		}
	},
}
