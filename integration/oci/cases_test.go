package oci

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// testCase is one bundle: what it changes in the plain spec, and how it ends.
type testCase struct {
	name    string
	change  func(*specs.Spec)
	prepare func(t *testing.T, bundle string) // after the bundle is written
	status  int
	stderr  string // ocirun's message names this
}

func pointer[T any](value T) *T { return &value }

func shell(script string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = []string{"/bin/sh", "-c", script} }
}

func without(s *specs.Spec, namespace specs.LinuxNamespaceType) {
	var kept []specs.LinuxNamespace
	for _, n := range s.Linux.Namespaces {
		if n.Type != namespace {
			kept = append(kept, n)
		}
	}
	s.Linux.Namespaces = kept
}

var cases = []testCase{
	{name: "plain"},
	{name: "status", change: shell("exit 42"), status: 42},
	{name: "signal", change: func(s *specs.Spec) { // a process 1 of its namespace would not see its own signal
		without(s, specs.PIDNamespace)
		shell("kill -TERM $$; sleep 10")(s)
	}, status: 143},
	{name: "output", change: shell("echo out; echo err >&2")},
	{name: "args", change: func(s *specs.Spec) { s.Process.Args = append(s.Process.Args, "name", "one two", "", "\t$x") }},
	{name: "path-lookup", change: func(s *specs.Spec) { s.Process.Args = []string{"echo", "found"} }},
	{name: "own-path", change: func(s *specs.Spec) {
		s.Process.Env = []string{"PATH=/nowhere:/usr/bin:/bin"}
		s.Process.Args = []string{"echo", "found"}
	}},
	{name: "command-missing", change: func(s *specs.Spec) { s.Process.Args = []string{"no-such-command"} },
		status: 1, stderr: `exec: "no-such-command": executable file not found in $PATH`},
	{name: "file-missing", change: func(s *specs.Spec) { s.Process.Args = []string{"/no/such"} },
		status: 1, stderr: `exec: "/no/such": stat /no/such: no such file or directory`},
	{name: "not-executable", change: func(s *specs.Spec) { s.Process.Args = []string{"/etc/not-executable"} },
		status: 1, stderr: `exec: "/etc/not-executable": permission denied`},
	{name: "env", change: func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A=b c", "EMPTY=", "A=last") }},
	{name: "no-env", change: func(s *specs.Spec) { s.Process.Env = nil }},
	{name: "cwd", change: func(s *specs.Spec) { s.Process.Cwd = "/var/tmp" }},
	{name: "user", change: func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1234, GID: 5678, AdditionalGids: []uint32{7, 8}}
	}},
	{name: "umask", change: func(s *specs.Spec) { s.Process.User.Umask = pointer(uint32(0o027)) }},
	{name: "no-capabilities", change: func(s *specs.Spec) { s.Process.Capabilities = nil }},
	{name: "capabilities", change: func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{
			Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Permitted: []string{"CAP_KILL"},
			Effective: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
	}},
	{name: "ambient-for-user", change: func(s *specs.Spec) {
		s.Process.User.UID = 1000
		all := []string{"CAP_NET_BIND_SERVICE"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all, Inheritable: all, Ambient: all}
	}},
	{name: "new-privileges", change: func(s *specs.Spec) { s.Process.NoNewPrivileges = false }},
	{name: "rlimits", change: func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 99}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
	}},
	{name: "no-rlimits", change: func(s *specs.Spec) {
		s.Process.Rlimits = nil
		shell("ulimit -Sn; ulimit -Hn; ulimit -c")(s)
	}},
	{name: "oom-score", change: func(s *specs.Spec) { s.Process.OOMScoreAdj = pointer(321) }},
	{name: "hostname", change: func(s *specs.Spec) { s.Hostname = "other.example" }},
	{name: "domainname", change: func(s *specs.Spec) {
		s.Domainname = "example.com"
		shell("cat /proc/sys/kernel/domainname")(s)
	}},
	{name: "writable-root", change: func(s *specs.Spec) {
		s.Root.Readonly = false
		shell("touch /new && ls -l /new | cut -c1-10")(s)
	}},
	{name: "read-only-root", change: shell("touch /new 2>/dev/null; echo $?")},
	{name: "host-network", change: func(s *specs.Spec) { without(s, specs.NetworkNamespace) }},
	{name: "host-pid", change: func(s *specs.Spec) {
		without(s, specs.PIDNamespace)
		shell("test $$ -gt 1 && echo host")(s)
	}},
	{name: "cgroup-namespace", change: func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		shell("cat /proc/self/cgroup; cut -d' ' -f2- /proc/mounts | sort")(s)
	}},
	{name: "cgroups", change: func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: pointer(int64(64 << 20))}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: pointer(int64(50000)), Period: pointer(uint64(100000)), Shares: pointer(uint64(512)), Cpus: "0"}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: pointer(int64(33))}
		shell("cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max cpu/cpu.cfs_quota_us cpu/cpu.shares cpu.max cpu.weight cpuset/cpuset.cpus cpuset.cpus pids/pids.max pids.max 2>/dev/null; true")(s)
	}},
	{name: "device-rules", change: func(s *specs.Spec) {
		shell("echo x > /dev/null && echo null; head -c 1 /dev/zero | wc -c; ls -l /dev/full | tr -s ' ' | cut -d' ' -f1-6")(s)
	}},
	{name: "device", change: func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/sub/kmsg2", Type: "c", Major: 1, Minor: 11, FileMode: pointer(os.FileMode(0o640)), GID: pointer(uint32(4))}}
		shell("ls -ln /dev/sub/kmsg2 | tr -s ' ' | cut -d' ' -f1-6")(s)
	}},
	{name: "sysctl", change: func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "9999"}
		shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")(s)
	}},
	{name: "sysctl-of-a-hooks-device", change: func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c",
			`exec nsenter --net=/proc/$(sed 's/.*"pid": *\([0-9]*\).*/\1/')/ns/net ip link add made type bridge`}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}}}
		s.Linux.Sysctl = map[string]string{"net.ipv4.conf.made.rp_filter": "2"}
		shell("cat /proc/sys/net/ipv4/conf/made/rp_filter")(s)
	}},
	{name: "masked-paths", change: func(s *specs.Spec) {
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/etc/passwd", "/home", "/no/such/path")
		shell("wc -c < /etc/passwd; ls -a /home; cut -d' ' -f2- /proc/mounts | sort")(s)
	}},
	{name: "bind", change: func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt/deep", Type: "bind", Source: "shared", Options: []string{"rbind", "rw"}},
			specs.Mount{Destination: "/mnt/file", Type: "bind", Source: "shared/file", Options: []string{"bind", "ro", "nosuid", "nodev"}})
		s.Root.Readonly = false
		shell("cat /mnt/deep/file /mnt/file; echo x > /mnt/file; echo $?; grep /mnt /proc/mounts | cut -d' ' -f2-")(s)
	}, prepare: func(t *testing.T, bundle string) {
		if err := os.Mkdir(filepath.Join(bundle, "shared"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bundle, "shared/file"), []byte("content\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "tmpfs", change: func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "size=1m", "mode=1750"}})
		s.Root.Readonly = false
		shell("grep scratch /proc/mounts; ls -ld /scratch | cut -c1-10")(s)
	}},
	{name: "mount-through-link", change: func(s *specs.Spec) { // the link leads out of the root file system, the mount must not
		s.Root.Readonly = false
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/escape/x", Type: "tmpfs", Source: "tmpfs"})
		shell("cut -d' ' -f2 /proc/mounts | grep -v -E '^/(dev|proc|sys)' | sort")(s)
	}, prepare: func(t *testing.T, bundle string) {
		if err := os.Symlink("/tmp", filepath.Join(bundle, "rootfs/escape")); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "seccomp", change: func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: pointer(uint(38))}}}
		shell("mkdir /dev/shm/x; echo $?; grep Seccomp: /proc/self/status")(s)
	}},
	{name: "hooks", change: func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > /dev/null; echo ran > shared"}}}}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "shared", Options: []string{"bind"}})
		s.Root.Readonly = false
		shell("cat /etc/hosts")(s)
	}, prepare: func(t *testing.T, bundle string) {
		if err := os.WriteFile(filepath.Join(bundle, "shared"), []byte("before\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}},

	// Refused: the message names the field.
	{name: "no-config", prepare: func(t *testing.T, bundle string) {
		if err := os.Remove(filepath.Join(bundle, "config.json")); err != nil {
			t.Fatal(err)
		}
	}, status: 1, stderr: "config.json"},
	{name: "malformed", prepare: func(t *testing.T, bundle string) {
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(`{"process": [`), 0o644); err != nil {
			t.Fatal(err)
		}
	}, status: 1, stderr: "config.json"},
	{name: "relative-cwd", change: func(s *specs.Spec) { s.Process.Cwd = "relative" }, status: 1, stderr: "process.cwd"},
	{name: "no-args", change: func(s *specs.Spec) { s.Process.Args = nil }, status: 1, stderr: "process.args"},
	{name: "missing-rootfs", change: func(s *specs.Spec) { s.Root.Path = "no-such-dir" }, status: 1, stderr: "root"},
	{name: "unknown-namespace", change: func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "parallel"})
	}, status: 1, stderr: "linux.namespaces"},
	{name: "double-namespace", change: func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UTSNamespace})
	}, status: 1, stderr: "linux.namespaces"},
	{name: "hostname-without-uts", change: func(s *specs.Spec) { without(s, specs.UTSNamespace) }, status: 1, stderr: "hostname"},
	{name: "unknown-rlimit", change: func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_PATIENCE", Soft: 1, Hard: 1}}
	}, status: 1, stderr: "RLIMIT_PATIENCE"},
	{name: "foreign-sysctl", change: func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "10"} },
		status: 1, stderr: "vm.swappiness"},
	{name: "memory-too-small", change: func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: pointer(int64(-7))}
	}, status: 1, stderr: "memory"},
	{name: "mount-source-missing", change: func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "/no/such/source", Options: []string{"bind"}})
	}, status: 1, stderr: "/no/such/source"},
}
