package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// generated returns a case for each value of fields that take one of many.
func generated() []testCase {
	var list []testCase
	for _, make := range []func() []testCase{
		limitCases, capabilityCases, tmpfsCases, bindCases, sysctlCases, processCases, propagationCases,
		pathCases, seccompCases, argumentCases, resourceCases, hookCases, deviceCases, malformedCases, sharedCases, versionCases,
	} {
		list = append(list, make()...)
	}
	return list
}

// both applies changes one after the other.
func both(changes ...func(*specs.Spec)) func(*specs.Spec) {
	return func(s *specs.Spec) {
		for _, change := range changes {
			change(s)
		}
	}
}

func limitCases() (list []testCase) {
	for _, l := range []specs.POSIXRlimit{
		{Type: "RLIMIT_CPU", Soft: 100, Hard: 200}, {Type: "RLIMIT_FSIZE", Soft: 1 << 20, Hard: 1 << 21},
		{Type: "RLIMIT_DATA", Soft: 1 << 30, Hard: 1 << 31}, {Type: "RLIMIT_STACK", Soft: 1 << 20, Hard: 1 << 22},
		{Type: "RLIMIT_CORE", Soft: 0, Hard: 5}, {Type: "RLIMIT_RSS", Soft: 1 << 30, Hard: 1 << 31},
		{Type: "RLIMIT_NPROC", Soft: 1000, Hard: 2000}, {Type: "RLIMIT_MEMLOCK", Soft: 4096, Hard: 8192},
		{Type: "RLIMIT_AS", Soft: 1 << 31, Hard: 1 << 32}, {Type: "RLIMIT_LOCKS", Soft: 5, Hard: 6},
		{Type: "RLIMIT_SIGPENDING", Soft: 50, Hard: 60}, {Type: "RLIMIT_MSGQUEUE", Soft: 1000, Hard: 2000},
		{Type: "RLIMIT_NICE"}, {Type: "RLIMIT_RTPRIO"}, {Type: "RLIMIT_RTTIME", Soft: 1000000, Hard: 2000000},
	} {
		list = append(list, testCase{name: "limit-" + strings.ToLower(l.Type[len("RLIMIT_"):]), change: both(
			func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{l} }, shell("sed 's/ *$//' /proc/self/limits"))})
	}
	return append(list,
		testCase{name: "limit-soft-above-hard", status: 1, stderr: "RLIMIT_NOFILE", change: func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 10}}
		}},
		testCase{name: "limit-twice", status: 1, stderr: "process.rlimits[1]", change: func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 20}, {Type: "RLIMIT_NOFILE", Soft: 30, Hard: 30}}
		}})
}

func capabilityCases() (list []testCase) {
	look := shell("grep -E '^(Cap|Uid)' /proc/self/status")
	for _, uid := range []uint32{0, 1000} {
		for _, name := range []string{"CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_BPF"} {
			list = append(list, testCase{name: fmt.Sprintf("%s-of-%d", strings.ToLower(name), uid), change: both(func(s *specs.Spec) {
				s.Process.User.UID = uid
				one := []string{name}
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: one, Effective: one, Permitted: one, Inheritable: one, Ambient: one}
			}, look)})
		}
		list = append(list, testCase{name: fmt.Sprintf("bounding-alone-of-%d", uid), change: both(func(s *specs.Spec) {
			s.Process.User.UID = uid
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}
		}, look)})
	}
	return append(list, testCase{name: "capability-unknown", change: both(func(s *specs.Spec) {
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_FLY")
	}, look)})
}

func tmpfsCases() (list []testCase) {
	for _, option := range []string{"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime",
		"sync", "dirsync", "size=64k", "nr_inodes=100", "mode=0700", "uid=5", "defaults", "nonsense"} {
		c := testCase{name: "tmpfs-" + strings.ReplaceAll(option, "=", "-"), change: both(func(s *specs.Spec) {
			s.Root.Readonly = false
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{option}})
		}, shell("grep scratch /proc/mounts; ls -ldn /scratch | tr -s ' ' | cut -d' ' -f1-4; touch /scratch/x 2>/dev/null; echo $?"))}
		if option == "nonsense" {
			c.status, c.stderr = 1, "/scratch"
		}
		list = append(list, c)
	}
	return append(list, testCase{name: "tmpfs-copy-up", change: both(func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	}, shell("cat /etc/passwd; ls -lnA /etc | tr -s ' ' | cut -d' ' -f1-5,9"))})
}

// shared makes the source of binds.
func shared(t *testing.T, bundle string) {
	if err := os.MkdirAll(filepath.Join(bundle, "shared/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "shared/file"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func bindCases() (list []testCase) {
	for _, option := range []string{"ro", "rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime",
		"private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable", "rro", "rnosuid"} {
		list = append(list, testCase{name: "bind-" + option, prepare: shared, change: both(func(s *specs.Spec) {
			s.Root.Readonly = false
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "shared", Options: []string{"rbind", option}})
		}, shell(`grep ' /mnt ' /proc/self/mountinfo | cut -d' ' -f5- | sed -E 's/:[0-9]+//g; s/ - .*//'; touch /mnt/x 2>/dev/null; echo $?`))})
	}
	return append(list, testCase{name: "bind-remount", prepare: shared, change: both(func(s *specs.Spec) {
		s.Root.Readonly = false
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "shared", Options: []string{"bind"}},
			specs.Mount{Destination: "/mnt", Type: "bind", Source: "shared", Options: []string{"bind", "remount", "ro"}})
	}, shell("touch /mnt/x 2>/dev/null; echo $?"))})
}

func sysctlCases() (list []testCase) {
	for key, value := range map[string]string{"net.core.somaxconn": "77", "net/ipv4/conf/lo/rp_filter": "1", "net.ipv4.ping_group_range": "5 6",
		"kernel.sem": "1 2 3 4", "kernel.shmmax": "12345", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "11"} {
		list = append(list, testCase{name: "sysctl-" + strings.ReplaceAll(key, "/", "."), change: both(
			func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{key: value} },
			shell("cat /proc/sys/"+strings.ReplaceAll(key, ".", "/")))})
	}
	for _, key := range []string{"kernel.hostname", "kernel.pid_max", "net.nope", "fs.file-max"} {
		list = append(list, testCase{name: "sysctl-" + key, status: 1, stderr: key, change: func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{key: "1"} }})
	}
	return list
}

func processCases() []testCase {
	user := func(u specs.User) func(*specs.Spec) { return func(s *specs.Spec) { s.Process.User = u } }
	env := func(list ...string) func(*specs.Spec) { return func(s *specs.Spec) { s.Process.Env = list } }
	cwd := func(dir string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Process.Cwd, s.Root.Readonly = dir, false }
	}
	oom := func(adj int) func(*specs.Spec) { return func(s *specs.Spec) { s.Process.OOMScoreAdj = &adj } }
	return []testCase{
		{name: "user-nobody", change: user(specs.User{UID: 65534, GID: 65534})},
		{name: "user-groups", change: user(specs.User{AdditionalGids: []uint32{1, 2, 3, 4, 65534}})},
		{name: "user-umask-0", change: user(specs.User{Umask: pointer(uint32(0))})},
		{name: "user-umask-0777", change: user(specs.User{Umask: pointer(uint32(0o777))})},
		{name: "env-home", change: env("PATH=/bin:/usr/bin", "HOME=/somewhere")},
		{name: "env-home-empty", change: env("PATH=/bin:/usr/bin", "HOME=")},
		{name: "env-path-twice", change: env("PATH=/nowhere", "PATH=/bin:/usr/bin", "A=1", "A=2")},
		{name: "env-without-equals", change: env("PATH=/bin:/usr/bin", "WORD"), status: 1, stderr: "env"},
		{name: "cwd-made", change: both(cwd("/new/deep"), shell("pwd; ls -ld /new/deep | cut -c1-10"))},
		{name: "cwd-dots", change: both(cwd("/usr/../etc/."), shell("pwd"))},
		{name: "cwd-file", change: cwd("/etc/passwd"), status: 1, stderr: "/etc/passwd"},
		{name: "oom-0", change: oom(0)},
		{name: "oom-1000", change: oom(1000)},
		{name: "oom-1001", change: oom(1001), status: 1, stderr: "oom"},
		{name: "without-ipc", change: both(func(s *specs.Spec) { without(s, specs.IPCNamespace) }, shell("ls /dev/mqueue >/dev/null; echo $?"))},
		{name: "without-uts", change: func(s *specs.Spec) { without(s, specs.UTSNamespace); s.Hostname = "" }},
		{name: "personality-32", change: both(func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		}, shell("uname -m"))},
		{name: "personality-odd", status: 1, stderr: "linux.personality.domain", change: func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} }},
		{name: "status-255", change: shell("exit 255"), status: 255},
		{name: "killed", change: func(s *specs.Spec) {
			without(s, specs.PIDNamespace)
			shell("kill -KILL $$")(s)
		}, status: 137},
		{name: "orphans", change: shell("sleep 0.05 & sleep 0.06 & exit 3"), status: 3},
		{name: "long-argument", change: func(s *specs.Spec) {
			s.Process.Args = []string{"/bin/sh", "-c", "echo ${#0}", strings.Repeat("x", 100000)}
		}},
	}
}

func propagationCases() (list []testCase) {
	for _, value := range []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"} {
		list = append(list, testCase{name: "propagation-" + value, change: both(
			func(s *specs.Spec) { s.Linux.RootfsPropagation = value },
			shell(`sed -E 's/:[0-9]+//g; s/ - .*//' /proc/self/mountinfo | cut -d' ' -f5,7-`))})
	}
	return append(list, testCase{name: "propagation-odd", status: 1, stderr: "linux.rootfsPropagation", change: func(s *specs.Spec) { s.Linux.RootfsPropagation = "sideways" }})
}

func pathCases() (list []testCase) {
	look := shell("cat /etc/passwd | wc -c; ls -A /etc /home; echo x 2>/dev/null >> /etc/passwd; echo $?; touch /home/x 2>/dev/null; echo $?; cut -d' ' -f2 /proc/mounts | sort")
	for name, path := range map[string]string{"file": "/etc/passwd", "directory": "/home", "absent": "/no/such", "link": "/link", "below-file": "/etc/passwd/x"} {
		link := func(t *testing.T, bundle string) {
			if err := os.Symlink("/etc/passwd", filepath.Join(bundle, "rootfs/link")); err != nil {
				t.Fatal(err)
			}
		}
		status, complaint := 0, ""
		if name == "below-file" {
			status, complaint = 1, path
		}
		list = append(list,
			testCase{name: "mask-" + name, status: status, stderr: complaint, prepare: link, change: both(func(s *specs.Spec) { s.Root.Readonly, s.Linux.MaskedPaths = false, []string{path} }, look)},
			testCase{name: "readonly-" + name, status: status, stderr: complaint, prepare: link, change: both(func(s *specs.Spec) { s.Root.Readonly, s.Linux.ReadonlyPaths = false, []string{path} }, look)})
	}
	return append(list, testCase{name: "mask-relative", status: 1, stderr: "linux.maskedPaths[0]", change: func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"etc"} }})
}

// filter is a profile with one rule for mkdir.
func filter(action specs.LinuxSeccompAction, errno *uint, args ...specs.LinuxSeccompArg) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "no_such_call"}, Action: action, ErrnoRet: errno, Args: args}}}
	}
}

func seccompCases() (list []testCase) {
	look := shell("mkdir /dev/shm/x; echo $?; grep Seccomp: /proc/self/status")
	for name, action := range map[string]specs.LinuxSeccompAction{"errno": specs.ActErrno, "kill": specs.ActKill, "kill-process": specs.ActKillProcess,
		"kill-thread": specs.ActKillThread, "trap": specs.ActTrap, "log": specs.ActLog, "allow": specs.ActAllow} {
		list = append(list, testCase{name: "seccomp-" + name, change: both(filter(action, nil), look)})
	}
	return append(list,
		testCase{name: "seccomp-action", status: 1, stderr: "SCMP_ACT_MAYBE", change: filter("SCMP_ACT_MAYBE", nil)},
		testCase{name: "seccomp-default", status: 1, stderr: "linux.seccomp.defaultAction", change: func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "nothing"} }},
		testCase{name: "seccomp-arch", status: 1, stderr: "SCMP_ARCH_PDP11", change: func(s *specs.Spec) {
			filter(specs.ActErrno, nil)(s)
			s.Linux.Seccomp.Architectures = []specs.Arch{"SCMP_ARCH_PDP11"}
		}},
		testCase{name: "seccomp-deny-by-default", change: func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: pointer(uint(38)), Architectures: []specs.Arch{specs.ArchX86_64},
				Syscalls: []specs.LinuxSyscall{{Action: specs.ActAllow, Names: []string{"execve", "exit", "exit_group", "read", "write", "brk", "mmap", "munmap", "mprotect",
					"arch_prctl", "set_tid_address", "set_robust_list", "prlimit64", "getrandom", "rseq", "readlink", "newfstatat", "fstat", "getuid", "getpid", "getppid",
					"rt_sigaction", "rt_sigprocmask", "open", "openat", "close", "fcntl", "stat", "getcwd", "capget", "capset", "prctl", "futex", "fchdir", "chdir", "ioctl", "getegid", "getgid", "geteuid",
					"epoll_pwait", "nanosleep", "sched_yield", "madvise", "sigaltstack", "gettid", "tgkill", "rt_sigreturn", "setgid", "setuid", "setgroups", "epoll_ctl", "lstat", "getdents64", "clone", "wait4", "vfork", "fork", "rt_sigsuspend", "kill"}}}}
			s.Process.Args = []string{"/bin/mkdir", "/dev/shm/x"}
		}, status: 1})
}

// argumentCases compare the mode that mkdir is called with, 0777.
func argumentCases() (list []testCase) {
	for name, arg := range map[string]specs.LinuxSeccompArg{
		"eq": {Op: specs.OpEqualTo, Value: 0o777}, "ne": {Op: specs.OpNotEqual, Value: 0o777}, "lt": {Op: specs.OpLessThan, Value: 0o777},
		"le": {Op: specs.OpLessEqual, Value: 0o777}, "gt": {Op: specs.OpGreaterThan, Value: 0o776}, "ge": {Op: specs.OpGreaterEqual, Value: 0o1000},
		"masked": {Op: specs.OpMaskedEqual, Value: 0o700, ValueTwo: 0o700},
	} {
		arg.Index = 1
		list = append(list, testCase{name: "seccomp-arg-" + name, change: both(func(s *specs.Spec) {
			filter(specs.ActErrno, pointer(uint(38)), arg)(s)
			s.Linux.Seccomp.Syscalls[0].Names = []string{"mkdir"}
		}, shell("mkdir /dev/shm/x 2>/dev/null; echo $?"))})
	}
	return append(list, testCase{name: "seccomp-arg-odd", status: 1, stderr: "SCMP_CMP_LIKE", change: filter(specs.ActErrno, nil, specs.LinuxSeccompArg{Op: "SCMP_CMP_LIKE"})})
}

func resourceCases() (list []testCase) {
	look := shell("cd /sys/fs/cgroup; for f in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.swappiness memory/memory.oom_control memory.max memory.low cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu.weight cpu.max cpuset/cpuset.cpus cpuset/cpuset.mems cpuset.cpus pids/pids.max pids.max; do test -e $f && echo $f $(cat $f); done; true")
	for name, set := range map[string]func(*specs.LinuxResources){
		"shares-2":         func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Shares: pointer(uint64(2))} },
		"shares-most":      func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Shares: pointer(uint64(262144))} },
		"quota":            func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Quota: pointer(int64(20000))} },
		"period":           func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Period: pointer(uint64(50000))} },
		"quota-unlimited":  func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Quota: pointer(int64(-1))} },
		"cpuset":           func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Cpus: "0", Mems: "0"} },
		"pids":             func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: pointer(int64(9))} },
		"pids-unlimited":   func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: pointer(int64(-1))} },
		"memory":           func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Limit: pointer(int64(50 << 20))} },
		"memory-unlimited": func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Limit: pointer(int64(-1))} },
		"memory-soft":      func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Reservation: pointer(int64(20 << 20))} },
	} {
		list = append(list, testCase{name: "resource-" + name, change: both(func(s *specs.Spec) { set(s.Linux.Resources) }, look)})
	}
	return append(list, testCase{name: "resource-cpuset-absent", status: 1, stderr: "cpu", change: func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "4000"} }})
}

func hookCases() (list []testCase) {
	// Each kind of hook leaves its mark in the bundle, which the next ones see.
	note := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >/dev/null; test -e ../rootfs -o -e rootfs; exit 0", name}}}
	}
	fail := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 3"}}}
	for name, set := range map[string]func(*specs.Hooks, []specs.Hook){
		"prestart":        func(h *specs.Hooks, l []specs.Hook) { h.Prestart = l },
		"createRuntime":   func(h *specs.Hooks, l []specs.Hook) { h.CreateRuntime = l },
		"createContainer": func(h *specs.Hooks, l []specs.Hook) { h.CreateContainer = l },
		"startContainer":  func(h *specs.Hooks, l []specs.Hook) { h.StartContainer = l },
		"poststop":        func(h *specs.Hooks, l []specs.Hook) { h.Poststop = l },
	} {
		with := func(l []specs.Hook) func(*specs.Spec) {
			return func(s *specs.Spec) { s.Hooks = &specs.Hooks{}; set(s.Hooks, l) }
		}
		list = append(list, testCase{name: "hook-" + name, change: both(with(note(name)), shell("echo ran"))})
		if name != "poststop" { // a failure of that one is only a warning
			list = append(list, testCase{name: "hook-" + name + "-fails", status: 1, stderr: name, change: both(with(fail), shell("sleep 5"))})
		}
	}
	return append(list, testCase{name: "hook-relative", status: 1, stderr: "hooks.poststop[0].path", change: func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "true"}}}
	}})
}

func deviceCases() (list []testCase) {
	for name, device := range map[string]specs.LinuxDevice{
		"block": {Path: "/dev/loop77", Type: "b", Major: 7, Minor: 77}, "char": {Path: "/dev/deep/zero", Type: "c", Major: 1, Minor: 5},
		"unbuffered": {Path: "/dev/u", Type: "u", Major: 1, Minor: 5}, "pipe": {Path: "/dev/pipe", Type: "p", FileMode: pointer(os.FileMode(0o600))},
	} {
		list = append(list, testCase{name: "device-" + name, change: both(func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{device} },
			shell("ls -ln "+device.Path+" | tr -s ' ' | cut -d' ' -f1-6"))})
	}
	return append(list, testCase{name: "device-odd", status: 1, stderr: "linux.devices[0].type", change: func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "x"}}
	}})
}

// malformedCases write a config.json that the spec's types could not hold.
func malformedCases() (list []testCase) {
	for name, c := range map[string]struct{ from, to, stderr string }{
		"uid":         {`"uid": 0`, `"uid": "root"`, "uid"},
		"args":        {`"args": [`, `"args": [7, `, "args"},
		"annotations": {`"hostname":`, `"annotations": [], "hostname":`, "annotations"},
		"unknown":     {`"hostname":`, `"colour": "red", "hostname":`, ""},
	} {
		rewrite := func(t *testing.T, bundle string) {
			file := filepath.Join(bundle, "config.json")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(data), c.from, c.to, 1)
			if changed == string(data) {
				t.Fatalf("config.json has no %s", c.from)
			}
			if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		one := testCase{name: "malformed-" + name, prepare: rewrite, change: shell("echo ran"), stderr: c.stderr}
		if c.stderr != "" {
			one.status = 1
		}
		list = append(list, one)
	}
	return append(list,
		testCase{name: "without-root", status: 1, stderr: "root.path", change: func(s *specs.Spec) { s.Root = nil }},
		testCase{name: "without-linux", status: 1, stderr: "linux", change: func(s *specs.Spec) { s.Linux = nil }},
		testCase{name: "relative-namespace", status: 1, stderr: "linux.namespaces[0].path", change: func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "proc/1/ns/pid" }},
	)
}

// sharedCases have no mount namespace: what they mount is mounted in the
// runtime's.
func sharedCases() []testCase {
	without := func(s *specs.Spec) {
		without(s, specs.MountNamespace)
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	}
	look := shell("readlink /proc/self/ns/mnt; pwd; ls -d /proc/self/status /dev/pts /sys/class; touch /x 2>/dev/null; echo $?; ls /bin | wc -l; cat /etc/passwd")
	return []testCase{
		{name: "no-mount-namespace", change: both(without, look)},
		{name: "no-mount-namespace-writable", change: both(without, func(s *specs.Spec) { s.Root.Readonly = false }, look)},
		{name: "no-mount-namespace-bind", prepare: shared, change: both(without, func(s *specs.Spec) {
			s.Root.Readonly = false
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "shared", Options: []string{"bind", "ro"}})
		}, shell("cat /mnt/file; touch /mnt/x 2>/dev/null; echo $?"))},
		{name: "no-mount-namespace-fails", status: 1, stderr: "no-such-command", change: both(without, func(s *specs.Spec) { s.Process.Args = []string{"no-such-command"} })},
		{name: "no-mount-namespace-masks", status: 1, stderr: "unable to restrict sys entries without a private MNT namespace", change: func(s *specs.Spec) {
			without(s)
			s.Linux.MaskedPaths = []string{"/proc/keys"}
		}},
	}
}

// versionCases are what newer versions of the spec brought and others dropped.
func versionCases() (list []testCase) {
	for version, status := range map[string]int{"1.0.0": 0, "1.0.2-dev": 0, "2.0.0": 1, "nonsense": 1} {
		c := testCase{name: "version-" + version, status: status, change: both(func(s *specs.Spec) { s.Version = version }, shell("echo ran"))}
		if status != 0 {
			c.stderr = "ociVersion"
		}
		list = append(list, c)
	}
	refused := func(name, stderr string, change func(*specs.Spec)) testCase {
		return testCase{name: name, status: 1, stderr: stderr, change: change}
	}
	return append(list,
		refused("rdt-absent", "linux.intelRdt", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold"} }),
		refused("rdt-name", `invalid intelRdt.ClosID "../x"`, func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "../x"} }),
	)
}
