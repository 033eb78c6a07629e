package thinpool

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// control is the device that takes the device mapper's calls.
type control struct{ fd int }

const controlPath = "/dev/mapper/control"

// openControl opens the control device, and makes its node where no udev has:
// opening it loads the module.
func openControl() (*control, error) {
	fd, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		fd, err = makeControl()
	}
	if err != nil {
		return nil, errdefs.FailedPrecondition.Errorf("the kernel has no device mapper (modprobe dm_mod; CONFIG_BLK_DEV_DM): opening %s: %w", controlPath, err)
	}
	c := &control{fd}
	var q query
	if err := c.call(unix.DM_VERSION, &q); err != nil {
		_ = unix.Close(fd)
		return nil, errdefs.FailedPrecondition.Errorf("the device mapper does not answer: %w", err)
	}
	return c, nil
}

func makeControl() (int, error) {
	const misc, mapper = 10, 236 // MISC_MAJOR, MAPPER_CTRL_MINOR
	if err := os.MkdirAll("/dev/mapper", 0o755); err != nil {
		return -1, err
	}
	// Without a driver the node would stay and say nothing: try it elsewhere first.
	trial := fmt.Sprintf("/dev/mapper/.control-%d", os.Getpid())
	if err := unix.Mknod(trial, unix.S_IFCHR|0o600, int(unix.Mkdev(misc, mapper))); err != nil {
		return -1, err
	}
	fd, err := unix.Open(trial, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = os.Remove(trial)
		_ = os.Remove("/dev/mapper") // if it is empty
		return -1, err
	}
	return fd, os.Rename(trial, controlPath)
}

// query is the buffer of a call: struct dm_ioctl and what follows it.
type query struct {
	header unix.DmIoctl
	data   [16 << 10]byte
}

func newQuery(name string) *query {
	q := &query{}
	copy(q.header.Name[:len(q.header.Name)-1], name)
	return q
}

func (c *control) call(request uintptr, q *query) error {
	q.header.Version = [3]uint32{unix.DM_VERSION_MAJOR, 0, 0}
	q.header.Data_size = uint32(unsafe.Sizeof(*q))
	q.header.Data_start = uint32(unsafe.Offsetof(q.data))
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), request, uintptr(unsafe.Pointer(q)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// create makes a device without a table and returns its number.
func (c *control) create(name string) (uint64, error) {
	q := newQuery(name)
	err := c.call(unix.DM_DEV_CREATE, q)
	return q.header.Dev, err
}

// find returns a device's number and whether it has a live table.
func (c *control) find(name string) (number uint64, live bool, err error) {
	q := newQuery(name)
	err = c.call(unix.DM_DEV_STATUS, q)
	return q.header.Dev, q.header.Flags&unix.DM_ACTIVE_PRESENT_FLAG != 0, err
}

// load gives a device a table of one target, and resume makes it live.
func (c *control) load(name string, sectors uint64, target, parameters string) error {
	q := newQuery(name)
	q.header.Target_count = 1
	spec := (*unix.DmTargetSpec)(unsafe.Pointer(&q.data[0]))
	spec.Length = sectors
	copy(spec.Target_type[:len(spec.Target_type)-1], target)
	if unix.SizeofDmTargetSpec+len(parameters)+1 > len(q.data) {
		return unix.E2BIG
	}
	copy(q.data[unix.SizeofDmTargetSpec:], parameters)
	if err := c.call(unix.DM_TABLE_LOAD, q); err != nil {
		return fmt.Errorf("loading the table %q of %s: %w", target+" "+parameters, name, err)
	}
	return c.resume(name)
}

func (c *control) resume(name string) error {
	if err := c.call(unix.DM_DEV_SUSPEND, newQuery(name)); err != nil {
		return fmt.Errorf("resuming %s: %w", name, err)
	}
	return nil
}

func (c *control) suspend(name string) error {
	q := newQuery(name)
	q.header.Flags = unix.DM_SUSPEND_FLAG
	if err := c.call(unix.DM_DEV_SUSPEND, q); err != nil {
		return fmt.Errorf("suspending %s: %w", name, err)
	}
	return nil
}

// remove removes a device; one in use goes with its last user.
func (c *control) remove(name string) error {
	q := newQuery(name)
	q.header.Flags = unix.DM_DEFERRED_REMOVE
	if err := c.call(unix.DM_DEV_REMOVE, q); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return nil
}

func (c *control) message(name, text string) error {
	q := newQuery(name)
	copy(q.data[unsafe.Sizeof(unix.DmTargetMsg{}):], text)
	return c.call(unix.DM_TARGET_MSG, q)
}

// table returns the only target's type, and its status or, if asked for, its table.
func (c *control) table(name string, flags uint32) (target, text string, err error) {
	q := newQuery(name)
	q.header.Flags = flags
	if err := c.call(unix.DM_TABLE_STATUS, q); err != nil {
		return "", "", fmt.Errorf("reading the status of %s: %w", name, err)
	}
	if q.header.Target_count != 1 {
		return "", "", nil
	}
	spec := (*unix.DmTargetSpec)(unsafe.Pointer(&q.data[0]))
	text, _, _ = strings.Cut(string(q.data[unix.SizeofDmTargetSpec:]), "\x00")
	return unix.ByteSliceToString(spec.Target_type[:]), text, nil
}

// Available says what is missing for pools, or nil.
func Available() error {
	c, err := openControl()
	if err != nil {
		return err
	}
	return unix.Close(c.fd)
}
