package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// maxAccounts bounds how much of an image's passwd and group files is read.
const maxAccounts = 16 << 20

// ResolveUser looks NAME|UID[:GROUP|GID] and additional groups up in a root
// filesystem's account files. A file that is not there is an empty one.
func ResolveUser(rootfs, name string, additional []string) (specs.User, error) {
	passwd, err := readInRoot(rootfs, "/etc/passwd")
	if err != nil {
		return specs.User{}, err
	}
	group, err := readInRoot(rootfs, "/etc/group")
	if err != nil {
		return specs.User{}, err
	}
	return lookUp(name, additional, passwd, group)
}

func lookUp(name string, additional []string, passwd, group []byte) (specs.User, error) {
	found, err := user.GetExecUser(name, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		account, _, _ := strings.Cut(name, ":")
		return specs.User{}, errdefs.InvalidArgument.Coded(errdefs.UserUnknown, account, "%w", err)
	case err != nil:
		return specs.User{}, errdefs.InvalidArgument.Errorf("user %q: %w", name, err)
	}
	more, err := user.GetAdditionalGroups(additional, bytes.NewReader(group))
	if err != nil {
		return specs.User{}, errdefs.InvalidArgument.Errorf("HostConfig.GroupAdd: %w", err)
	}
	slices.Sort(more) // it comes out of a map
	resolved := specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	// The primary group is among the supplementary ones: without it a process
	// could shed a group that a file's mode denies (CVE-2022-36109).
	resolved.AdditionalGids = groupSet(append(append([]int{found.Gid}, found.Sgids...), more...))
	return resolved, nil
}

// groupSet drops repetitions and keeps the order.
func groupSet(gids []int) (set []uint32) {
	seen := make(map[int]bool)
	for _, gid := range gids {
		if !seen[gid] {
			seen[gid] = true
			set = append(set, uint32(gid))
		}
	}
	return set
}

// readInRoot reads a regular file below rootfs. Links are followed as the
// container would follow them, and what is not a file counts as absent.
func readInRoot(rootfs, path string) ([]byte, error) {
	handle, err := pathrs.OpenInRoot(rootfs, path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s in the container: %w", path, err)
	}
	defer handle.Close()
	if info, err := handle.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, err // a fifo would make the open below wait
	}
	file, err := pathrs.Reopen(handle, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("opening %s in the container: %w", path, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxAccounts+1))
	if err == nil && len(data) > maxAccounts {
		return nil, errdefs.InvalidArgument.Errorf("%s in the container is larger than %d bytes", path, maxAccounts)
	}
	return data, err
}

// MakeWorkingDir makes the working directory in a root filesystem if it is
// not there.
func MakeWorkingDir(rootfs, dir string) error {
	if err := pathrs.MkdirAll(rootfs, dir, 0o755); err != nil {
		return fmt.Errorf("making working directory %s in the container: %w", dir, err)
	}
	return nil
}
