package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

// caller is what the user who calls the runtime may do.
type caller struct {
	unprivileged bool // not root: a user namespace gives what it needs
	noGroups     bool // of its ids only its own are mapped, and setgroups is denied
}

func theCaller() caller { return caller{unprivileged: os.Geteuid() != 0} }

// check finds what an unprivileged user cannot have. The texts are runc's.
func (c *caller) check(spec *specs.Spec) error {
	if !c.unprivileged {
		return nil
	}
	user := namespace(spec, specs.UserNamespace)
	if user == nil {
		return invalid("linux.namespaces", "rootless container requires user namespaces")
	}
	if user.Path != "" {
		return nil
	}
	c.noGroups = onlyOwn(spec.Linux.GIDMappings, os.Getegid())
	if c.noGroups && len(spec.Process.User.AdditionalGids) > 0 {
		return invalid("process.user.additionalGids", "cannot set any additional groups in a rootless container")
	}
	return nil
}

// onlyOwn reports whether the maps are the one line that a user may write
// without help, user_namespaces(7).
func onlyOwn(maps []specs.LinuxIDMapping, id int) bool {
	return len(maps) == 1 && maps[0].Size == 1 && maps[0].HostID == uint32(id)
}

// writeMaps gives the child's new user namespace its id maps.
func (l *launch) writeMaps() error {
	linux := l.spec.Linux
	if err := l.writeMap("uid", "newuidmap", linux.UIDMappings, onlyOwn(linux.UIDMappings, os.Geteuid())); err != nil {
		return err
	}
	if l.user.noGroups { // the price of writing the map oneself (3.19)
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/setgroups", l.child.pid), []byte("deny"), 0); err != nil {
			return fmt.Errorf("denying setgroups: %w", err)
		}
	}
	return l.writeMap("gid", "newgidmap", linux.GIDMappings, l.user.noGroups)
}

// writeMap writes one of the maps, or has it written by the program that may
// give a user the ranges of /etc/subuid and /etc/subgid.
func (l *launch) writeMap(kind, program string, list []specs.LinuxIDMapping, own bool) error {
	if !l.user.unprivileged || own {
		var text strings.Builder
		for _, m := range list {
			fmt.Fprintf(&text, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s_map", l.child.pid, kind), []byte(text.String()), 0); err != nil {
			return fmt.Errorf("writing the id maps: %w", err)
		}
		return nil
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return errdefs.FailedPrecondition.Coded(errdefs.SpecInvalid, "linux."+kind+"Mappings",
			"linux.%sMappings: %s, which maps more than the user's own id, is not installed: %w", kind, program, err)
	}
	args := []string{strconv.Itoa(l.child.pid)}
	for _, m := range list {
		for _, n := range []uint32{m.ContainerID, m.HostID, m.Size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errdefs.PermissionDenied.Coded(errdefs.SpecInvalid, "linux."+kind+"Mappings", "linux.%sMappings: %s: %s", kind, program, strings.TrimSpace(string(out)))
	}
	return err
}
