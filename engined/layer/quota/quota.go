package quota

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// Set limits the directory trees dirs, which are new and on one file system, to
// size bytes together.
func Set(size int64, dirs ...string) error {
	choosing.Lock()
	defer choosing.Unlock()
	first, err := openDir(dirs[0])
	if err != nil {
		return err
	}
	defer unix.Close(first)
	if err := enforced(first); err != nil {
		return err
	}
	project, err := freeProject(first)
	if err != nil {
		return err
	}
	if err := limit(first, project, size); err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := assign(dir, project); err != nil {
			return errors.Join(err, limit(first, project, 0))
		}
	}
	return nil
}

// choosing is held from looking for a free project until it is taken.
var choosing sync.Mutex

// Clear forgets the limit of a directory tree that is about to be removed, if
// Set has given it one.
func Clear(dir string) error {
	fd, err := openDir(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	project, err := own(fd)
	if err != nil || project == 0 || enforced(fd) != nil {
		return nil // a file system without projects or quotas
	}
	return limit(fd, project, 0)
}

// own is the project that Set has given a directory, or 0. One that it shares
// with the directory above was inherited: an administrator has limited the whole
// data root.
func own(fd int) (uint32, error) {
	attributes, err := attributesOf(fd)
	if err != nil {
		return 0, err
	}
	above, err := unix.Openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening the directory above: %w", err)
	}
	defer unix.Close(above)
	inherited, err := attributesOf(above)
	if err != nil || attributes.project == inherited.project {
		return 0, err
	}
	return attributes.project, nil
}

// Supported says why trees under dir cannot be limited, or nil.
func Supported(dir string) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return enforced(fd)
}

func openDir(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", dir, err)
	}
	return fd, nil
}

// fileAttributes is the kernel's struct fsxattr.
type fileAttributes struct {
	flags, extent, extents, project, copyExtent uint32
	_                                           [8]byte
}

const (
	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inherit       = 0x200      // FS_XFLAG_PROJINHERIT: what is made below has the same project
)

func attributesOf(fd int) (fileAttributes, error) {
	var a fileAttributes
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getAttributes, uintptr(unsafe.Pointer(&a)))
	if errno != 0 {
		return a, fmt.Errorf("reading the project: %w", errno)
	}
	return a, nil
}

func assign(dir string, project uint32) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	a, err := attributesOf(fd)
	if err != nil {
		return err
	}
	a.project = project
	a.flags |= inherit
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), setAttributes, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return fmt.Errorf("setting the project of %s: %w", dir, errno)
	}
	return nil
}

// Commands of quotactl(2), for projects.
const (
	projects      = 2 // PRJQUOTA
	getQuota      = 0x800007<<8 | projects
	setQuota      = 0x800008<<8 | projects
	getState      = ('X'<<8+5)<<8 | projects // Q_XGETQSTAT, which ext4 answers too
	limitsAreOn   = 1 << 5                   // FS_QUOTA_PDQ_ENFD
	blockLimits   = 1                        // QIF_BLIMITS
	blockOfLimits = 1024
)

// diskQuota is struct if_dqblk; limits count 1024 bytes.
type diskQuota struct {
	hard, soft, bytes    uint64
	inodeHard, inodeSoft uint64
	inodes               uint64
	byteTime, inodeTime  uint64
	valid                uint32
	_                    uint32
}

// state is struct fs_quota_stat.
type state struct {
	version byte
	_       byte
	flags   uint16
	_       [76]byte
}

// quotactl names the file system by a descriptor: no device node is needed.
func quotactl(fd int, command, id uint32, to unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command), uintptr(id), uintptr(to), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// enforced says what is missing for limits on the file system of fd.
func enforced(fd int) error {
	var s state
	err := quotactl(fd, getState, 0, unsafe.Pointer(&s))
	switch {
	case errors.Is(err, unix.EPERM):
		return errdefs.PermissionDenied.Errorf("reading the state of quotas: %w", err)
	case err == nil && s.flags&limitsAreOn != 0:
		return nil
	case errors.Is(err, unix.ENOSYS) && !fsHasQuotactl():
		return errdefs.FailedPrecondition.Errorf("the kernel has no quotactl_fd (Linux 5.14, CONFIG_QUOTACTL)")
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(fd, &stat); err != nil {
		return fmt.Errorf("looking at the file system: %w", err)
	}
	switch stat.Type {
	case unix.XFS_SUPER_MAGIC:
		return errdefs.FailedPrecondition.Errorf("the xfs below is not mounted with pquota, or the kernel lacks CONFIG_XFS_QUOTA")
	case unix.EXT4_SUPER_MAGIC:
		return errdefs.FailedPrecondition.Errorf("the ext4 below is not mounted with prjquota (once, unmounted: tune2fs -O project,quota -Q prjquota), or the kernel lacks CONFIG_QFMT_V2")
	}
	return errdefs.FailedPrecondition.Errorf("the file system below (type 0x%x) has no project quotas; xfs and ext4 have", stat.Type)
}

// fsHasQuotactl tells ENOSYS of a file system without quotas from that of a
// kernel without the call: the latter minds no wrong descriptor.
func fsHasQuotactl() bool {
	var s state
	return errors.Is(quotactl(-1, getState, 0, unsafe.Pointer(&s)), unix.EBADF)
}

// freeProject returns an id that nothing counts on.
func freeProject(fd int) (uint32, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, err
	}
	id := uint32(stat.Ino)
	for range 1000 {
		var q diskQuota
		err := quotactl(fd, getQuota, id, unsafe.Pointer(&q))
		if id != 0 && (errors.Is(err, unix.ENOENT) || err == nil && q.hard == 0 && q.bytes == 0 && q.inodes == 0) {
			return id, nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, fmt.Errorf("reading the quota of project %d: %w", id, err)
		}
		id++
	}
	return 0, errdefs.ResourceExhausted.Errorf("no project id near inode %d is free", stat.Ino)
}

func limit(fd int, project uint32, size int64) error {
	q := diskQuota{hard: uint64((size + blockOfLimits - 1) / blockOfLimits), valid: blockLimits}
	q.soft = q.hard // no time of grace
	if err := quotactl(fd, setQuota, project, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("setting the quota of project %d: %w", project, err)
	}
	return nil
}
