package layer

import (
	"os/exec"
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

// Drivers that Docker had and this engine does not: whoever asks for one learns
// what there is instead, and what of the machine's own would be missing too.

func probeZFS(root string) error {
	var missing []string
	if !kernelHas("zfs") {
		missing = append(missing, "the kernel module zfs (Debian: zfs-dkms in contrib; modprobe zfs)")
	}
	if _, err := exec.LookPath("zfs"); err != nil {
		missing = append(missing, "the program zfs (Debian: zfsutils-linux in contrib)")
	}
	if fs := filesystemOf(root); fs != "zfs" {
		missing = append(missing, "a zfs file system under the data root, which is on "+fs)
	}
	also := ""
	if len(missing) > 0 {
		also = "; this machine also lacks " + strings.Join(missing, ", ")
	}
	return errdefs.NotImplemented.Errorf("the zfs driver is not implemented; on OpenZFS 2.2 and newer overlay2 works, on older ones vfs%s", also)
}

func probeAUFS(string) error {
	if !kernelHas("aufs") {
		return errdefs.NotImplemented.Errorf("the kernel has no aufs, which was never part of Linux (it comes as a patch), and the aufs driver is not implemented; overlay2 does the same")
	}
	return errdefs.NotImplemented.Errorf("the aufs driver is not implemented; overlay2 does the same")
}
