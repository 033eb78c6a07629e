package libcontainer

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mapped gives the sandbox a user namespace whose ids start at 200000.
func (s *sandbox) mapped() {
	s.setNamespace(specs.UserNamespace, "")
	s.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	s.spec.Linux.GIDMappings = s.spec.Linux.UIDMappings
	s.reachable()
}

// reachable lets the root of a user namespace come to the bundle.
func (s *sandbox) reachable() {
	for _, dir := range []string{s.dir, filepath.Dir(s.dir), s.path("")} {
		s.must(os.Chmod(dir, 0o755))
	}
	s.must(syscall.Chown(s.path(""), 200000, 200000))
}

// running starts a container that sleeps.
func (s *sandbox) running() *Container {
	s.t.Helper()
	s.spec.Process.Args = []string{"sleep", "100"}
	if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.status != 0 {
		s.t.Fatal(r.stderr)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	return c
}

// exec runs a script in the running container.
func (s *sandbox) exec(script string) result {
	s.t.Helper()
	process := *s.spec.Process
	process.Args = []string{"sh", "-c", script}
	return s.runtime(runtimeCall{Verb: "exec", Process: &process})
}

// A pod: a second container joins the user and network namespace of the first
// and has the others made in there.
func TestUserNamespaceCanBeJoined(t *testing.T) {
	sandbox := newSandbox(t)
	sandbox.mapped()
	pod := sandbox.running()
	s := newSandbox(t)
	s.reachable()
	s.setNamespace(specs.UserNamespace, fmt.Sprintf("/proc/%d/ns/user", pod.State.Pid))
	s.setNamespace(specs.NetworkNamespace, fmt.Sprintf("/proc/%d/ns/net", pod.State.Pid))
	s.spec.Hostname = "inside"
	private := filepath.Join(s.dir, "private") // nobody but root may come here
	s.must(os.Mkdir(private, 0o700))
	s.must(os.WriteFile(filepath.Join(private, "file"), []byte("bound"), 0o644))
	s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/file", Type: "bind", Source: filepath.Join(private, "file"), Options: []string{"bind"}})
	out := s.sh(`echo $$; id -u; cat /proc/self/uid_map; hostname; echo > /dev/null; stat -c %t,%T /dev/null; for n in user net; do readlink /proc/self/ns/$n; done; cat /file`)
	user, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pod.State.Pid))
	s.must(err)
	net, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pod.State.Pid))
	s.must(err)
	if got, want := strings.Join(strings.Fields(out), " "), "1 0 0 200000 65536 inside 1,3 "+user+" "+net+" bound"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.wantNothingLeft()
	running := s.running()
	if r := s.exec("id -u; echo $$; hostname"); strings.Join(strings.Fields(r.stdout)[:1], " ") != "0" || !strings.HasSuffix(r.stdout, "inside\n") {
		t.Errorf("exec: %+v", r)
	}
	s.must(running.killInit())
	s.must(pod.killInit())
}

// What a new user namespace joins is joined before it is made.
func TestNewUserNamespaceWithAJoinedNetwork(t *testing.T) {
	host := newSandbox(t)
	pod := host.running()
	s := newSandbox(t)
	s.mapped()
	path := fmt.Sprintf("/proc/%d/ns/net", pod.State.Pid)
	s.setNamespace(specs.NetworkNamespace, path)
	// A sysfs belongs to who owns the network namespace.
	s.spec.Mounts = s.spec.Mounts[:3]
	net, err := os.Readlink(path)
	s.must(err)
	s.want("id -u; readlink /proc/self/ns/net; cat /proc/self/gid_map | while read a b c; do echo $a $b $c; done", "0\n"+net+"\n0 200000 65536")
	s.must(pod.killInit())
}

func TestTimeNamespaceHasItsOffsets(t *testing.T) {
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprintf("user namespace %v", user), func(t *testing.T) {
			s := newSandbox(t)
			if user {
				s.mapped()
			}
			s.setNamespace(specs.TimeNamespace, "")
			s.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 5000000}, "monotonic": {Secs: 7, Nanosecs: 5}}
			own, err := os.Readlink("/proc/self/ns/time")
			s.must(err)
			s.running()
			script := "cat /proc/uptime; readlink /proc/self/ns/time; cat /proc/self/timens_offsets"
			r := s.exec(script)
			fields := strings.Fields(r.stdout)
			if len(fields) != 9 || fields[2] == own {
				t.Fatalf("got %+v", r)
			}
			uptime, err := strconv.ParseFloat(fields[0], 64)
			s.must(err)
			if got := strings.Join(fields[3:], " "); uptime < 5000000 || got != "monotonic 7 5 boottime 5000000 0" {
				t.Errorf("uptime %v, offsets %s", uptime, got)
			}
		})
	}
}

func TestMountNamespaceCanBeJoined(t *testing.T) {
	host := newSandbox(t)
	pod := host.running()
	s := newSandbox(t)
	path := fmt.Sprintf("/proc/%d/ns/mnt", pod.State.Pid)
	link, err := os.Readlink(path)
	s.must(err)
	s.setNamespace(specs.MountNamespace, path)
	// The bundle must be there, too; the pod's root is not the host's.
	r := s.run("readlink", "/proc/self/ns/mnt")
	if r.status == 0 && strings.TrimSpace(r.stdout) != link {
		t.Errorf("got %+v, want %s", r, link)
	}
	s.wantNothingLeft()
	s.must(pod.killInit())
}

// Its limits are a user namespace's own.
func TestUserNamespaceHasItsSysctls(t *testing.T) {
	s := newSandbox(t)
	s.mapped()
	s.spec.Linux.Sysctl = map[string]string{"user.max_mnt_namespaces": "77"}
	s.want("cat /proc/sys/user/max_mnt_namespaces", "77")
}

func TestUserNamespaceMapsIDs(t *testing.T) {
	s := newSandbox(t)
	s.setNamespace(specs.UserNamespace, "")
	adj := 50
	s.spec.Process.OOMScoreAdj = &adj
	s.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	s.spec.Linux.GIDMappings = s.spec.Linux.UIDMappings
	for _, dir := range []string{s.dir, filepath.Dir(s.dir), s.path("")} {
		s.must(os.Chmod(dir, 0o755))
	}
	s.must(syscall.Chown(s.path(""), 200000, 200000))
	out := s.sh(`id -u; cat /proc/self/uid_map; echo > /dev/null; stat -c %t,%T /dev/null; touch /tmp/x || touch /x; stat -c %u /x; cat /proc/self/oom_score_adj`)
	if fields := strings.Fields(out); strings.Join(fields, " ") != "0 0 200000 65536 1,3 0 50" {
		t.Errorf("got %q", fields)
	}
}

// The host's root is nobody in a user namespace: what enters one becomes its root.
func TestWhatEntersAUserNamespaceIsItsRoot(t *testing.T) {
	s := newSandbox(t)
	s.mapped()
	s.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "mount -t tmpfs none etc && id -u >etc/hook"}}}}
	s.running()
	process := *s.spec.Process
	process.Terminal = true
	process.Args = []string{"sh", "-c", "cat /etc/hook; stat -c %u /dev/pts/0; echo written >/dev/pts/0"}
	r := s.runtime(runtimeCall{Verb: "exec", Process: &process})
	if got := strings.Join(strings.Fields(r.stdout), " "); got != "0 0 written" {
		t.Errorf("got %q, %+v", got, r)
	}
}

// Limits above the runtime's own need the host's root, not that of the namespace.
func TestUserNamespaceHasLimitsAboveTheRuntimes(t *testing.T) {
	s := newSandbox(t)
	if own, err := ownCapabilities(); err != nil || own>>unix.CAP_SYS_RESOURCE&1 == 0 {
		t.Skip("needs CAP_SYS_RESOURCE")
	}
	var own unix.Rlimit
	const messageQueues = 12 // RLIMIT_MSGQUEUE, of which no sysctl wants less
	s.must(unix.Getrlimit(messageQueues, &own))
	if own.Max == unix.RLIM_INFINITY {
		t.Skip("there is no limit above the test's own")
	}
	hard := own.Max + 100
	s.mapped()
	s.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_MSGQUEUE", Soft: 1000, Hard: hard}}
	s.running()
	process := *s.spec.Process
	process.Args = []string{"sh", "-c", "grep -h msgqueue /proc/self/limits /proc/1/limits"}
	r := s.runtime(runtimeCall{Verb: "exec", Process: &process})
	want := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("Max msgqueue size 1000 %d bytes ", hard), 2), " ")
	if strings.Join(strings.Fields(r.stdout), " ") != want {
		t.Errorf("got %+v, want %q", r, want)
	}
}

// earlyAndByPlan runs a test of what the stage does before it knows its plan, or else by
// that, as in a user namespace.
func earlyAndByPlan(t *testing.T, test func(*testing.T, *sandbox)) {
	t.Helper()
	for name, change := range map[string]func(*sandbox){
		"early":   func(*sandbox) {},
		"by plan": (*sandbox).mapped,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			change(s)
			test(t, s)
		})
	}
}

func TestSessionKeyringIsItsOwn(t *testing.T) {
	const keyrings = "cat /proc/keys" // those of the user, and so of other containers, too
	earlyAndByPlan(t, func(t *testing.T, s *sandbox) {
		own := "_ses." + s.create.ID + ": "
		if got := s.sh(keyrings); !strings.Contains(got, own) {
			t.Errorf("no %q among\n%s", own, got)
		}
		s.create.ID += "-without"
		s.create.NoNewKeyring = true
		if got := s.sh(keyrings); strings.Contains(got, s.create.ID) {
			t.Errorf("without a new keyring:\n%s", got)
		}
		s.running()
		process := *s.spec.Process
		process.Args = []string{"cat", "/proc/keys"}
		if r := s.runtime(runtimeCall{Verb: "exec", Process: &process}); r.status != 0 || strings.Contains(r.stdout, s.create.ID) {
			t.Errorf("exec without a new keyring: %+v", r)
		}
		s.clean()
		s.create.ID += "-at-all"
		s.create.NoNewKeyring, s.without = false, []string{"keyctl"}
		s.want("echo ran", "ran")
	})
}

func TestLoopbackIsUp(t *testing.T) {
	earlyAndByPlan(t, func(_ *testing.T, s *sandbox) {
		s.want("cat /sys/class/net/lo/flags", "0x9") // IFF_UP, IFF_LOOPBACK
	})
}
