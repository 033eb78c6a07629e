package libcontainer

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// sharing takes the mount namespace out of the spec.
func (s *sandbox) sharing() {
	var kept []specs.LinuxNamespace
	for _, ns := range s.spec.Linux.Namespaces {
		if ns.Type != specs.MountNamespace {
			kept = append(kept, ns)
		}
	}
	s.spec.Linux.Namespaces = kept
}

// mountsBelow counts the host's mounts below the sandbox's directory.
func (s *sandbox) mountsBelow() int {
	s.t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	s.must(err)
	return strings.Count(string(data), " "+s.dir)
}

func TestMountsOfAContainerWithoutAMountNamespaceGoWithIt(t *testing.T) {
	s := newSandbox(t)
	s.sharing()
	s.spec.Root.Readonly = true
	s.want("readlink /proc/self/ns/mnt; ls -d /proc/1 /dev/pts /sys/kernel; touch /x 2>/dev/null || echo read-only",
		readLink(t, "/proc/self/ns/mnt")+"\n/dev/pts\n/proc/1\n/sys/kernel\nread-only")
	s.wantNothingLeft()
	c := s.running()
	if s.mountsBelow() < 5 {
		t.Errorf("%d mounts while it runs", s.mountsBelow())
	}
	if r := s.exec("ls -d /bin/busybox /proc/1/ns; pwd"); r.stdout != "/bin/busybox\n/proc/1/ns\n/\n" {
		t.Errorf("exec is not in the container's root: %+v", r)
	}
	s.must(c.killInit())
	s.must(Delete(t.Context(), s.create.Root, s.create.ID, true))
	if n := s.mountsBelow(); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
	s.wantNothingLeft()
}

func readLink(t *testing.T, path string) string {
	t.Helper()
	link, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestAFailureWithoutAMountNamespaceLeavesNoMount(t *testing.T) {
	s := newSandbox(t)
	s.sharing()
	if r := s.run("no-such-command"); errdefs.CodeOf(r.err) != errdefs.ExecNotFound {
		t.Errorf("got %+v", r)
	}
	if n := s.mountsBelow(); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
	s.wantNothingLeft()
}

// A runtime that was killed before it wrote state.json left the mount; another
// mount in its place stays.
func TestForcedDeleteUnmountsOnlyItsOwnRoot(t *testing.T) {
	s := newSandbox(t)
	s.sharing()
	c := s.running()
	s.must(c.killInit())
	s.must(os.Remove(filepath.Join(c.Dir(), StateFile)))
	other := filepath.Join(s.dir, "other")
	s.must(os.Mkdir(other, 0o755))
	s.must(unix.Mount("tmpfs", s.path(""), "tmpfs", 0, ""))
	s.t.Cleanup(func() { unix.Unmount(s.path(""), unix.MNT_DETACH) })
	half := &Container{Root: c.Root, ID: c.ID}
	s.must(half.unmountRoot())
	var fs unix.Statfs_t
	s.must(unix.Statfs(s.path(""), &fs))
	if fs.Type != unix.TMPFS_MAGIC {
		t.Error("a foreign mount at the root's place was taken away")
	}
	s.must(unix.Unmount(s.path(""), 0))
	s.must(Delete(t.Context(), s.create.Root, s.create.ID, true))
	if n := s.mountsBelow(); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}

func TestMemoryPolicyHoldsForExecToo(t *testing.T) {
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		t.Skip("the kernel has no NUMA policies")
	}
	s := newSandbox(t)
	s.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	s.want("grep -c ' bind=static:0 ' /proc/self/numa_maps >/dev/null && echo bound", "bound")
	c := s.running()
	if r := s.exec("grep -c ' bind=static:0 ' /proc/self/numa_maps >/dev/null && echo bound"); r.stdout != "bound\n" {
		t.Errorf("exec: %+v", r)
	}
	s.must(c.killInit())
	s.must(Delete(t.Context(), s.create.Root, s.create.ID, true))
	s.spec.Linux.MemoryPolicy.Mode = specs.MpolDefault // which wants no nodes
	if r := s.run("true"); r.err == nil || !strings.Contains(r.err.Error(), "setting the memory policy MPOL_DEFAULT") {
		t.Errorf("got %+v", r)
	}
}

// The container's device comes out of a namespace that the test's thread has
// for itself.
func TestNetworkDevicesMoveAndComeBack(t *testing.T) {
	s := newSandbox(t)
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	s.must(unix.Unshare(unix.CLONE_NEWNET))
	s.command("ip", "link", "add", "moved", "type", "veth")
	s.command("ip", "addr", "add", "10.11.12.13/24", "dev", "moved")
	s.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"moved": {Name: "inside"}}
	if r := s.run("no-such-command"); errdefs.CodeOf(r.err) != errdefs.ExecNotFound {
		t.Errorf("got %+v", r)
	}
	if out := s.command("ip", "-o", "addr", "show", "moved"); !strings.Contains(out, "10.11.12.13/24") {
		t.Errorf("the device came back as %q", out)
	}
	if out := s.sh("ip addr show inside"); !strings.Contains(out, "10.11.12.13/24") || !strings.Contains(out, "UP") {
		t.Errorf("the device inside: %q", out)
	}
	s.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"absent": {}}
	if r := s.run("true"); r.err == nil || !strings.Contains(r.err.Error(), `the host has no network device "absent"`) {
		t.Errorf("got %+v", r)
	}
	s.wantNothingLeft()
}

func TestIntelRdtNeedsResctrl(t *testing.T) {
	if data, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(data), " resctrl ") {
		t.Skip("this host has it")
	}
	s := newSandbox(t)
	s.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold"}
	if r := s.run("true"); r.err == nil || !strings.Contains(r.err.Error(), "intelRdt is specified in config, but Intel RDT is not supported or enabled") {
		t.Errorf("got %+v", r)
	}
	s.wantNothingLeft()
}
