package oci

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
)

// nobodyElse is a user that no host has.
const nobodyElse = 61234

// rootless is a bundle of an unprivileged user, and a runtime for him.
type rootless struct {
	t       *testing.T
	dir     string
	runtime bundle.Runtime
	cgroup  string // delegated, "" if none
}

func newRootless(t *testing.T, runtime bundle.Runtime) *rootless {
	t.Helper()
	harness.NeedRoot(t)
	for _, program := range []string{"setpriv", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s, of util-linux", program)
		}
	}
	r := &rootless{t: t, dir: harness.TempDir(t), runtime: runtime}
	must(t, os.Chmod(r.dir, 0o755))
	must(t, os.Mkdir(filepath.Join(r.dir, "run"), 0o700))
	// newuidmap asks for the user's name.
	r.copyOf("/etc/passwd", "someone:x:61234:61234::/:/bin/sh\n")
	r.copyOf("/etc/group", "someone:x:61234:\n")
	r.copyOf("/etc/subuid", "someone:300000:65536\n")
	r.copyOf("/etc/subgid", "someone:300000:65536\n")
	// The program itself may lie where the user does not get to.
	program, err := os.ReadFile(runtime.Path)
	must(t, err)
	r.runtime.Path = filepath.Join(r.dir, runtime.Name)
	must(t, os.WriteFile(r.runtime.Path, program, 0o755))
	must(t, bundle.Make(filepath.Join(r.dir, "bundle"), bundle.Plain("rootless")))
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyOf makes a file of /etc with one more line, to be bound over it.
func (r *rootless) copyOf(path, line string) {
	r.t.Helper()
	text, _ := os.ReadFile(path)
	must(r.t, os.WriteFile(filepath.Join(r.dir, filepath.Base(path)), append(text, line...), 0o644))
}

// as runs a script as the user, $R being the runtime.
func (r *rootless) as(script string) (output string, status int) {
	r.t.Helper()
	must(r.t, exec.Command("chown", "-R", "61234:61234", filepath.Join(r.dir, "run"), filepath.Join(r.dir, "bundle")).Run())
	setup := "mount --make-rprivate /; cd " + r.dir + `; for f in passwd group subuid subgid; do test -e /etc/$f || touch /etc/$f; mount --bind $f /etc/$f; done
		cd bundle; exec setpriv --reuid 61234 --regid 61234 --clear-groups sh -c "$0"`
	if r.cgroup != "" {
		setup = "echo $$ > " + r.cgroup + "/cgroup.procs; " + setup
	}
	cmd := exec.Command("unshare", "-m", "sh", "-c", setup, script)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + filepath.Join(r.dir, "run"), "HOME=/", "R=" + r.runtime.Path}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		r.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// spec writes the bundle's config.json as `spec --rootless` does, changed.
func (r *rootless) spec(change func(*specs.Spec)) {
	r.t.Helper()
	file := filepath.Join(r.dir, "bundle/config.json")
	must(r.t, os.Remove(file))
	if out, status := r.as("$R spec --rootless"); status != 0 {
		r.t.Fatal(out)
	}
	data, err := os.ReadFile(file)
	must(r.t, err)
	spec := new(specs.Spec)
	must(r.t, json.Unmarshal(data, spec))
	spec.Process.Terminal = false
	change(spec)
	data, err = json.Marshal(spec)
	must(r.t, err)
	must(r.t, os.WriteFile(file, data, 0o644))
}

// ranges maps the user's subordinate ids beside his own.
func ranges(s *specs.Spec) {
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: nobodyElse, Size: 1}, {ContainerID: 1, HostID: 300000, Size: 1000}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
}

func needRanges(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("newuidmap"); err != nil {
		t.Skip("needs newuidmap, of the Debian package uidmap")
	}
}

// eachRootless runs a test with ocirun, and with runc, which must agree.
func eachRootless(t *testing.T, test func(*rootless)) {
	for _, runtime := range []bundle.Runtime{{Name: "ocirun", Path: harness.Binary("ocirun")}, {Name: "runc", Path: "/usr/sbin/runc"}} {
		t.Run(runtime.Name, func(t *testing.T) {
			if _, err := os.Stat(runtime.Path); err != nil {
				t.Skip(err)
			}
			test(newRootless(t, runtime))
		})
	}
}

func (r *rootless) want(script, want string) {
	r.t.Helper()
	if out, status := r.as(script); status != 0 || strings.TrimSpace(out) != want {
		r.t.Errorf("%s: status %d\n got: %q\nwant: %q", script, status, out, want)
	}
}

func (r *rootless) wantError(script, text string) {
	r.t.Helper()
	if out, status := r.as(script); status == 0 || !strings.Contains(out, text) {
		r.t.Errorf("%s: status %d, expected an error with %q, got %s", script, status, text, out)
	}
	if out, _ := r.as("$R list -q"); out != "" {
		r.t.Errorf("containers are left: %s", out)
	}
}

func TestRootlessWithOneID(t *testing.T) {
	eachRootless(t, func(r *rootless) {
		r.spec(func(s *specs.Spec) {
			s.Process.Args = []string{"/bin/sh", "-c", "id -u; id -g; tr -s ' ' < /proc/self/uid_map; cat /proc/self/setgroups; echo x > /dev/null && hostname"}
		})
		r.want("$R run one", "0\n0\n 0 61234 1\ndeny\n"+hostnameOf(r))
		r.want("stat -c %a $XDG_RUNTIME_DIR/"+r.runtime.Name, "1700")
	})
}

// hostnameOf is what `spec` calls the host.
func hostnameOf(r *rootless) string {
	data, err := os.ReadFile(filepath.Join(r.dir, "bundle/config.json"))
	must(r.t, err)
	spec := new(specs.Spec)
	must(r.t, json.Unmarshal(data, spec))
	return spec.Hostname
}

func TestRootlessWithSubordinateIDs(t *testing.T) {
	needRanges(t)
	eachRootless(t, func(r *rootless) {
		r.spec(func(s *specs.Spec) {
			ranges(s)
			s.Process.User = specs.User{UID: 5, GID: 6}
			s.Process.Args = []string{"/bin/sh", "-c", "id; tr -s ' ' < /proc/self/gid_map; touch /tmp/x; ls -ln /tmp/x | tr -s ' ' | cut -d' ' -f3,4"}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}})
		})
		r.want("$R run many", "uid=5 gid=6\n 0 61234 1\n 1 300000 1000\n5 6")
		r.spec(func(s *specs.Spec) {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 1}, {ContainerID: 1, HostID: 300000, Size: 10}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
			s.Process.Args = []string{"/bin/true"}
		})
		if r.runtime.Name == "runc" { // it stumbles earlier, over another permission
			return
		}
		r.wantError("$R run rooted", "linux.uidMappings: newuidmap: ")
		r.spec(func(s *specs.Spec) { // runc refuses groups although the ranges allow them
			ranges(s)
			s.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}}
			s.Process.Args = []string{"/bin/sh", "-c", "id"}
		})
		r.want("$R run groups", "uid=5 gid=6 groups=7")
	})
}

// A createContainer hook is a program of the host in the container's namespaces.
func TestRootlessHooksAreInside(t *testing.T) {
	r := newRootless(t, bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun")})
	script := `test $$ != 1 && test -e ` + r.dir + ` && echo "$(hostname) $(tr -s ' ' < /proc/self/uid_map)" > ` + r.dir + "/run/note"
	r.spec(func(s *specs.Spec) {
		s.Hostname = "inside"
		s.Process.Args = []string{"/bin/true"}
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}}}
	})
	r.want("$R run hook && cat ../run/note", "inside  0 61234 1")
	r.spec(func(s *specs.Spec) {
		s.Process.Args = []string{"/bin/true"}
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/false"}}}
	})
	r.wantError("$R run fails", "createContainer hook #0: /bin/false: exit status 1")
}

// A startContainer hook has what the process has. runc gives it what its own first
// process has.
func TestRootlessStartHooks(t *testing.T) {
	r := newRootless(t, bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun")})
	rights := "id -u; grep Cap /proc/self/status"
	hooks := func(scripts ...string) {
		r.spec(func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{}
			for _, script := range scripts {
				s.Hooks.StartContainer = append(s.Hooks.StartContainer, specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}})
			}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "bind", Source: r.dir + "/run", Options: []string{"rw", "bind"}})
			s.Process.Args = []string{"/bin/sh", "-c", "(" + rights + ") > /tmp/part && mv /tmp/part /tmp/process"}
		})
	}
	same := "cmp ../run/hook ../run/process && grep -o '\"status\":\"[a-z]*\"' ../run/state && rm ../run/hook ../run/process ../run/state"
	hooks("cat > /tmp/state; (" + rights + ") > /tmp/hook")
	r.want("$R run one && "+same, `"status":"created"`)
	r.want("$R create two && $R start two && until [ -s ../run/process ]; do :; done; "+same+"; $R delete --force two", `"status":"created"`)
	hooks("true", "echo why; exit 3")
	r.wantError("$R run three", "error running startContainer hook #1: /bin/sh: exit status 3, output: why")
	r.wantError("$R create four && $R start four; status=$?; $R delete --force four; exit $status", "error running startContainer hook #1: /bin/sh: exit status 3, output: why")
	r.want("ls ../run/process 2>/dev/null; $R list -q", "")
}

// Rootless engines call the runtime as the root of a user namespace of theirs.
func TestRootlessInsideAUserNamespace(t *testing.T) {
	eachRootless(t, func(r *rootless) {
		own := []specs.LinuxIDMapping{{Size: 1}}
		for name, maps := range map[string][]specs.LinuxIDMapping{"shared": nil, "nested": own} {
			r.spec(func(s *specs.Spec) {
				s.Process.Args = []string{"/bin/sh", "-c", "id -u; exit 5"}
				s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
				if maps == nil {
					without(s, specs.UserNamespace)
				}
			})
			r.want("unshare -rm $R --root ../run/root run "+name+"; echo $?", "0\n5")
		}
		if !pureV2() {
			return
		}
		r.spec(func(s *specs.Spec) { // the cgroup namespace is the host's: nothing of it can be mounted anew
			s.Process.Args = []string{"/bin/sh", "-c", "test -d /cg && echo there"}
			without(s, specs.UserNamespace)
			without(s, specs.CgroupNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/cg", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}})
		})
		r.want("unshare -rm $R --root ../run/root run foreign", "there")
	})
}

func TestRootlessTimeOffsets(t *testing.T) {
	r := newRootless(t, bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun")})
	r.spec(func(s *specs.Spec) {
		s.Process.Args = []string{"/bin/sh", "-c", "read -r up rest < /proc/uptime; test ${up%.*} -gt 500000000 && echo later"}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 500000000}}
	})
	r.want("$R run late", "later")
}

// The whole life of a container, and two processes in it.
func TestRootlessLife(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		t.Run("ranges="+strconv.FormatBool(mapped), func(t *testing.T) {
			if mapped {
				needRanges(t)
			}
			eachRootless(t, func(r *rootless) {
				r.spec(func(s *specs.Spec) {
					if mapped {
						ranges(s)
					}
					s.Process.Args = []string{"/bin/sh", "-c", "while :; do sleep 0.1; done", "life-of-one"}
				})
				r.want(`$R create life </dev/null >/dev/null 2>&1 && $R state life | grep -q '"status": "created"' && $R start life; $R list -q`, "life")
				r.want(`$R exec life sh -c 'id -u; grep -q life-of-one /proc/1/cmdline && echo first; test $$ -gt 1 && echo inside; exit 0'`, "0\nfirst\ninside")
				r.want(`$R exec -d --pid-file pid life sleep 1000 </dev/null >/dev/null 2>&1; test -d /proc/$(cat pid) && echo there`, "there")
				r.want(`$R exec life sh -c 'exit 7'; echo $?`, "7")
				if !pureV2() { // there it may have a cgroup
					if out, status := r.as("$R ps life"); status == 0 || !strings.Contains(out, "unable to get all container pids") {
						r.t.Errorf("ps: status %d, %s", status, out)
					}
				}
				if _, status := r.as("$R exec life no-such-command"); status == 0 {
					r.t.Error("a command that is not there was executed")
				}
				r.want(`$R kill life KILL; while $R state life | grep -q '"running"'; do sleep 0.1; done; $R delete life; $R list -q`, "")
			})
		})
	}
}

func TestRootlessIsRefusedWhatItCannotHave(t *testing.T) {
	eachRootless(t, func(r *rootless) {
		plain := func(change func(*specs.Spec)) {
			r.spec(func(s *specs.Spec) { s.Process.Args = []string{"/bin/true"}; change(s) })
		}
		plain(func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{5} })
		r.wantError("$R run groups", "cannot set any additional groups in a rootless container")
		plain(func(s *specs.Spec) {
			without(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
		})
		r.wantError("$R run namespaces", "rootless container requires user namespaces")
		plain(func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(64 << 20))}}
		})
		r.wantError("$R run limits", "limit")
	})
}

// delegate gives the user a cgroup below which he may make his own.
func (r *rootless) delegate() {
	r.t.Helper()
	if !pureV2() {
		r.t.Skip("needs a host with cgroup v2 alone")
	}
	top := "/sys/fs/cgroup/" + filepath.Base(r.dir)
	r.cgroup = filepath.Join(top, "main")
	r.t.Cleanup(func() {
		if err := removeCgroupTree(top); err != nil {
			r.t.Error(err)
		}
	})
	must(r.t, os.MkdirAll(r.cgroup, 0o755))
	must(r.t, os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids"), 0))
	for _, dir := range []string{top, r.cgroup} {
		must(r.t, os.Chown(dir, nobodyElse, nobodyElse))
		for _, file := range []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
			must(r.t, os.Chown(filepath.Join(dir, file), nobodyElse, nobodyElse))
		}
	}
}

// Where the user logs in a second time his cgroup is not beside the container's,
// and the kernel lets him move nothing there.
func TestRootlessExecFromAnotherCgroup(t *testing.T) {
	r := newRootless(t, bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun")})
	r.delegate()
	r.spec(func(s *specs.Spec) { s.Process.Args = []string{"/bin/sleep", "100"} })
	r.want("$R run -d away </dev/null >/dev/null 2>&1; $R list -q", "away")
	delegated := r.cgroup
	r.cgroup = ""
	r.want("$R exec away echo inside", "inside")
	r.cgroup = delegated
	r.want("$R delete -f away; $R list -q", "")
}

// CVE-2023-25809: /sys is bound from the host with "ro", which is not for the
// cgroup file system mounted below it. Where part of that is the user's a
// container could change it, as the first bundle shows, which does not cover it.
func TestRootlessContainersDoNotChangeTheHostsCgroups(t *testing.T) {
	r := newRootless(t, bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun")})
	r.delegate()
	script := "mkdir /sys/fs/cgroup/" + filepath.Base(r.dir) + "/escaped 2>/dev/null && echo made; mkdir /sys/fs/cgroup/here 2>/dev/null && echo made here; exit 0"
	r.spec(func(s *specs.Spec) {
		s.Process.Args = []string{"/bin/sh", "-c", script}
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
	})
	r.want("$R run naive; rmdir /sys/fs/cgroup/"+filepath.Base(r.dir)+"/escaped", "made")
	r.spec(func(s *specs.Spec) { s.Process.Args = []string{"/bin/sh", "-c", script} })
	r.want("$R run covered", "")
}

func removeCgroupTree(top string) error {
	entries, err := os.ReadDir(top)
	for _, entry := range entries {
		if entry.IsDir() {
			err = errors.Join(err, removeCgroupTree(filepath.Join(top, entry.Name())))
		}
	}
	return errors.Join(err, os.Remove(top))
}

func TestRootlessLimitsInADelegatedCgroup(t *testing.T) {
	eachRootless(t, func(r *rootless) {
		r.delegate()
		r.spec(func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: pointer(int64(33))}}
			s.Linux.CgroupsPath = "/" + filepath.Base(r.dir) + "/limited"
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/cg", Type: "bind", Source: "/sys/fs/cgroup", Options: []string{"rbind", "ro"}})
			s.Process.Args = []string{"/bin/sh", "-c", "cut -d: -f3 /proc/self/cgroup; cd /cg" + s.Linux.CgroupsPath + "; cat memory.max pids.max"}
		})
		r.want("$R run limited", "/\n67108864\n33") // the root of its cgroup namespace
	})
}
