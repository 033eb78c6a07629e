package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
)

// eachRuntime runs a test with ocirun and runc, in a bundle of its own.
func eachRuntime(t *testing.T, test func(t *testing.T, call func(change func(*specs.Spec), args ...string) bundle.Output)) {
	ocirun, references, dir := runtimes(t)
	for _, runtime := range append([]bundle.Runtime{ocirun}, references...) {
		if runtime.Name == "crun" {
			continue // its texts differ
		}
		t.Run(runtime.Name, func(t *testing.T) {
			id := filepath.Base(dir) + "-" + runtime.Name + "-lsm"
			here := filepath.Join(dir, id)
			t.Cleanup(func() { runtime.Call(dir, "delete", "--force", id) }) //nolint:errcheck // there may be nothing
			test(t, func(change func(*specs.Spec), args ...string) bundle.Output {
				if change != nil {
					spec := bundle.Plain(id)
					spec.Process.NoNewPrivileges = false
					change(spec)
					must(t, os.RemoveAll(here)) // of the call before; nothing is mounted there by now
					must(t, bundle.Make(here, spec))
				}
				out := callWithID(t, runtime, here, id, args)
				return out
			})
		})
	}
}

// callWithID puts the container's id where args have ID.
func callWithID(t *testing.T, runtime bundle.Runtime, dir, id string, args []string) bundle.Output {
	t.Helper()
	var given []string
	detached := false
	for _, arg := range args {
		given = append(given, strings.ReplaceAll(arg, "ID", id))
		detached = detached || arg == "-d"
	}
	if !detached {
		out, err := runtime.Call(dir, given...)
		must(t, err)
		return out
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	defer null.Close()
	out, err := runtime.CallInto(null, dir, given...)
	must(t, err)
	return out
}

func needAppArmor(t *testing.T) (profile string) {
	t.Helper()
	harness.NeedRoot(t)
	if enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(enabled), "Y") {
		t.Skip("this kernel runs without AppArmor")
	}
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		t.Skip("needs apparmor_parser, of the Debian package apparmor")
	}
	profile = fmt.Sprintf("eit-lsm-%d", os.Getpid())
	text := "profile " + profile + " flags=(attach_disconnected,mediate_deleted) {\n  file,\n  capability,\n  network,\n  signal,\n  mount,\n  deny /etc/passwd r,\n}\n"
	load := func(option string) {
		cmd := exec.Command(parser, option)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("the profile cannot be loaded here: %v %s", err, out)
		}
	}
	load("--replace")
	t.Cleanup(func() { load("--remove") })
	return profile
}

func TestAppArmorConfinesTheProcess(t *testing.T) {
	profile := needAppArmor(t)
	const look = "cat /proc/self/attr/current; cat /etc/passwd >/dev/null 2>&1 || echo denied; cat /etc/not-executable >/dev/null 2>&1 || echo denied too"
	eachRuntime(t, func(t *testing.T, call func(func(*specs.Spec), ...string) bundle.Output) {
		out := call(func(s *specs.Spec) {
			s.Process.ApparmorProfile = profile
			shell(look)(s)
		}, "run", "ID")
		if want := profile + " (enforce)\ndenied\n"; out.Stdout != want || out.Status != 0 {
			t.Errorf("got %+v, want %q", out, want)
		}
		out = call(func(s *specs.Spec) {
			s.Process.ApparmorProfile = "eit-no-such-profile"
			shell(look)(s)
		}, "run", "ID")
		if out.Status != 1 || !strings.Contains(out.Stderr, "apparmor") && !strings.Contains(out.Stderr, "AppArmor") || out.Stdout != "" {
			t.Errorf("a profile that is not loaded: %+v", out)
		}
		if out = call(shell("while :; do sleep 1; done"), "run", "-d", "ID"); out.Status != 0 {
			t.Fatalf("run: %+v", out)
		}
		if out = call(nil, "exec", "--apparmor", profile, "ID", "/bin/sh", "-c", look); out.Stdout != profile+" (enforce)\ndenied\n" {
			t.Errorf("exec --apparmor: %+v", out)
		}
		if out = call(nil, "exec", "ID", "/bin/sh", "-c", look); !strings.HasPrefix(out.Stdout, "unconfined") || strings.Contains(out.Stdout, "denied") {
			t.Errorf("exec without a profile: %+v", out)
		}
		if out = call(nil, "exec", "--apparmor", "eit-no-such-profile", "ID", "/bin/true"); out.Status == 0 {
			t.Errorf("exec with a profile that is not loaded: %+v", out)
		}
	})
}

// In a user namespace the files of /proc belong to another root.
func TestAppArmorConfinesInAUserNamespace(t *testing.T) {
	profile := needAppArmor(t)
	eachRuntime(t, func(t *testing.T, call func(func(*specs.Spec), ...string) bundle.Output) {
		for _, joins := range []bool{false, true} {
			out := call(func(s *specs.Spec) {
				s.Process.ApparmorProfile = profile
				shell("cat /proc/self/attr/current")(s)
				s.Root.Readonly = false
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1 << 16}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
				if joins {
					for i := range s.Linux.Namespaces {
						if s.Linux.Namespaces[i].Type == specs.UTSNamespace {
							s.Linux.Namespaces[i].Path, s.Hostname = "/proc/self/ns/uts", ""
						}
					}
				}
			}, "run", "ID")
			if out.Stdout != profile+" (enforce)\n" {
				t.Errorf("joins %v: %+v", joins, out)
			}
		}
	})
}

// The labels are those of a policy that knows the types that containers use.
const (
	processLabel = "system_u:system_r:container_t:s0:c1,c2"
	mountLabel   = "system_u:object_r:container_file_t:s0:c1,c2"
)

func needSELinux(t *testing.T) {
	t.Helper()
	harness.NeedRoot(t)
	if current, err := os.ReadFile("/proc/self/attr/current"); err != nil || strings.TrimRight(string(current), "\x00\n") == "kernel" {
		t.Skip("this kernel runs without SELinux, or without a policy")
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		t.Skip("this kernel runs without SELinux")
	}
	if err := os.WriteFile("/sys/fs/selinux/context", []byte(processLabel), 0); err != nil {
		t.Skipf("the policy does not know %s: %v", processLabel, err)
	}
}

func TestSELinuxLabels(t *testing.T) {
	needSELinux(t)
	const look = `tr -d '\0\n' < /proc/self/attr/current; echo; grep -E ' /dev(/shm)? ' /proc/mounts | grep -c 'context="*` + mountLabel + `'`
	eachRuntime(t, func(t *testing.T, call func(func(*specs.Spec), ...string) bundle.Output) {
		out := call(func(s *specs.Spec) {
			s.Process.SelinuxLabel, s.Linux.MountLabel = processLabel, mountLabel
			shell(look)(s)
		}, "run", "ID")
		if want := processLabel + "\n2\n"; out.Stdout != want || out.Status != 0 {
			t.Errorf("got %+v, want %q", out, want)
		}
		if out = call(func(s *specs.Spec) {
			s.Process.SelinuxLabel = "nonsense"
			shell(look)(s)
		}, "run", "ID"); out.Status != 1 || out.Stdout != "" {
			t.Errorf("a label that is none: %+v", out)
		}
		if out = call(shell("while :; do sleep 1; done"), "run", "-d", "ID"); out.Status != 0 {
			t.Fatalf("run: %+v", out)
		}
		if out = call(nil, "exec", "--process-label", processLabel, "ID", "/bin/sh", "-c", look); !strings.HasPrefix(out.Stdout, processLabel+"\n") {
			t.Errorf("exec --process-label: %+v", out)
		}
	})
}
