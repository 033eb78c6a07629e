package subvolume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// Calls of linux/btrfs.h.
const (
	createCall   = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	snapshotCall = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	destroyCall  = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	setFlagsCall = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS
	quotaCall    = 0xc0109428 // BTRFS_IOC_QUOTA_CTL
	waitCall     = 0x0000942e // BTRFS_IOC_QUOTA_RESCAN_WAIT
	limitCall    = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	groupCall    = 0x4010942a // BTRFS_IOC_QGROUP_CREATE, which also deletes
	lookupCall   = 0xd0009412 // BTRFS_IOC_INO_LOOKUP

	rootInode = 256 // BTRFS_FIRST_FREE_OBJECTID: a subvolume's root, and no other directory
)

type named struct { // struct btrfs_ioctl_vol_args
	fd   int64
	name [4088]byte
}

type namedV2 struct { // struct btrfs_ioctl_vol_args_v2
	fd, transaction, flags uint64
	_                      [4]uint64
	name                   [4040]byte
}

func call(fd int, request uintptr, argument unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

func openDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// Create makes an empty subvolume.
func Create(path string) error {
	parent, err := openDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	var args named
	copy(args.name[:len(args.name)-1], filepath.Base(path))
	if err := call(parent, createCall, unsafe.Pointer(&args)); err != nil {
		return &fs.PathError{Op: "create subvolume", Path: path, Err: err}
	}
	return nil
}

// Snapshot makes a writable subvolume with the files of another. Subvolumes
// nested in that appear as empty directories.
func Snapshot(from, to string) error {
	source, err := openDir(from)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	parent, err := openDir(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	args := namedV2{fd: uint64(source)}
	copy(args.name[:len(args.name)-1], filepath.Base(to))
	if err := call(parent, snapshotCall, unsafe.Pointer(&args)); err != nil {
		return &fs.PathError{Op: "snapshot " + from + " to", Path: to, Err: err}
	}
	return nil
}

// Is says whether path is a subvolume.
func Is(path string) bool {
	var stat unix.Stat_t
	var system unix.Statfs_t
	return unix.Lstat(path, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR && stat.Ino == rootInode &&
		unix.Statfs(path, &system) == nil && system.Type == unix.BTRFS_SUPER_MAGIC
}

// Delete deletes a subvolume and those nested in it; a missing one is no error.
func Delete(path string) error {
	parent, err := openDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	err = deleteIn(parent, filepath.Base(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "delete subvolume", Path: path, Err: err}
	}
	return nil
}

func deleteIn(parent int, name string) error {
	forgetGroup(parent, name)
	err := destroy(parent, name)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	fd, err := openIn(parent, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var writable uint64 // in a read-only subvolume nothing can be deleted
	if err := call(fd, setFlagsCall, unsafe.Pointer(&writable)); err != nil {
		return fmt.Errorf("making %q writable: %w", name, err)
	}
	if err := deleteNested(fd); err != nil {
		return err
	}
	return destroy(parent, name)
}

// deleteNested looks through a whole tree: the kernel's list of subvolumes has
// no order that says which to delete first, and the case is rare.
func deleteNested(dir int) error {
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		var stat unix.Stat_t
		if err := unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if stat.Ino == rootInode {
			err = deleteIn(dir, name)
		} else {
			err = deleteBelow(dir, name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func deleteBelow(dir int, name string) error {
	fd, err := openIn(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return deleteNested(fd)
}

func destroy(parent int, name string) error {
	var args named
	copy(args.name[:len(args.name)-1], name)
	return call(parent, destroyCall, unsafe.Pointer(&args))
}

func openIn(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func namesIn(dir int) ([]string, error) {
	fd, err := openIn(dir, ".")
	if err != nil {
		return nil, err
	}
	opened := os.NewFile(uintptr(fd), "directory")
	defer opened.Close()
	return opened.Readdirnames(-1)
}

// Limit bounds what a subvolume refers to, files that it shares with others
// included, and turns the file system's quotas on for that.
func Limit(path string, size int64) error {
	fd, err := openDir(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	enable := struct{ command, status uint64 }{command: 1}
	if err := call(fd, quotaCall, unsafe.Pointer(&enable)); err != nil {
		return errdefs.FailedPrecondition.Errorf("turning on btrfs quotas: %w", err)
	}
	// Until everything is counted once, nothing is limited.
	if err := call(fd, waitCall, nil); err != nil {
		return fmt.Errorf("waiting for btrfs to count: %w", err)
	}
	const referenced = 1 // BTRFS_QGROUP_LIMIT_MAX_RFER
	limit := struct{ group, flags, referenced, exclusive, _, _ uint64 }{flags: referenced, referenced: uint64(size)}
	if err := call(fd, limitCall, unsafe.Pointer(&limit)); err != nil {
		return fmt.Errorf("limiting %s: %w", path, err)
	}
	return nil
}

// forgetGroup deletes the count of a subvolume that is to be deleted. Kernels
// since 6.10 refuse this and do it themselves, and without quotas there is
// none: a failure leaves at most a number behind.
func forgetGroup(parent int, name string) {
	fd, err := openIn(parent, name)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	lookup := struct {
		tree, object uint64
		name         [4080]byte
	}{object: rootInode}
	if call(fd, lookupCall, unsafe.Pointer(&lookup)) != nil {
		return
	}
	group := struct{ create, id uint64 }{id: lookup.tree}
	_ = call(fd, groupCall, unsafe.Pointer(&group))
}
