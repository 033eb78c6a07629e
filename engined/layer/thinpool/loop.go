package thinpool

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// attach gives a file a block device, which goes with its last user. The
// returned file is one, until the pool is another.
func attach(path string) (device *os.File, err error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	loops, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, errdefs.FailedPrecondition.Errorf("the kernel has no loop devices (modprobe loop; CONFIG_BLK_DEV_LOOP): %w", err)
	}
	defer loops.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: 512, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], path)
	for range 100 {
		number, err := unix.IoctlRetInt(int(loops.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("asking for a loop device: %w", err)
		}
		if device, err = openNode(fmt.Sprintf("/dev/loop%d", number), unix.Mkdev(7, uint32(number))); err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		_ = device.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was faster
			return nil, fmt.Errorf("attaching %s to /dev/loop%d: %w", path, number, err)
		}
	}
	return nil, errdefs.Unavailable.Errorf("every free loop device was taken by somebody else")
}

// openNode opens a block device, and makes its node where no devtmpfs has.
func openNode(path string, number uint64) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(number)); err != nil {
			return nil, fmt.Errorf("making %s: %w", path, err)
		}
		file, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	return file, err
}

// sectorsOf returns the size of a block device in 512 bytes.
func sectorsOf(device *os.File) (uint64, error) {
	end, err := device.Seek(0, 2)
	if err != nil {
		return 0, fmt.Errorf("asking for the size of %s: %w", device.Name(), err)
	}
	return uint64(end) / sector, nil
}

const sector = 512
