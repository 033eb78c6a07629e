package libcontainer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

func TestBindsHaveIDMaps(t *testing.T) {
	for name, c := range map[string]struct {
		mapped  bool // a user namespace, 0 is 200000
		options []string
		maps    []specs.LinuxIDMapping
		owner   string // of the bound file, 300000 on disk, as the container sees it
	}{
		"own map":                    {maps: []specs.LinuxIDMapping{{ContainerID: 300000, HostID: 5, Size: 10}}, options: []string{"bind", "idmap"}, owner: "5"},
		"own map without option":     {maps: []specs.LinuxIDMapping{{ContainerID: 300000, HostID: 6, Size: 10}}, options: []string{"rbind"}, owner: "6"},
		"user namespace and own map": {mapped: true, maps: []specs.LinuxIDMapping{{ContainerID: 300000, HostID: 200000 + 7, Size: 10}}, options: []string{"bind", "ridmap", "ro"}, owner: "7"},
		"map of the container":       {mapped: true, options: []string{"bind", "idmap"}, owner: "65534"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			if c.mapped {
				s.mapped()
			}
			source := filepath.Join(s.dir, "source")
			s.must(os.Mkdir(source, 0o755))
			file := filepath.Join(source, "file")
			s.must(os.WriteFile(file, nil, 0o644))
			s.must(syscall.Chown(file, 300000, 300000))
			s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/bound", Type: "bind", Source: "source", Options: c.options, UIDMappings: c.maps, GIDMappings: c.maps})
			r := s.run("stat", "-c", "%u %g", "/bound/file")
			if r.err != nil && errdefs.KindOf(r.err) == errdefs.FailedPrecondition {
				t.Skip(r.err) // the file system under the temporary directory cannot
			}
			if got := strings.TrimSpace(r.stdout); got != c.owner+" "+c.owner {
				t.Errorf("got %+v, want owner %s", r, c.owner)
			}
			s.wantNothingLeft()
		})
	}
}

func TestIDMapsAreChecked(t *testing.T) {
	one := []specs.LinuxIDMapping{{Size: 1}}
	for _, m := range []specs.Mount{
		{Destination: "/x", Type: "tmpfs", Source: "tmpfs", UIDMappings: one, GIDMappings: one},
		{Destination: "/x", Type: "bind", Source: "/", Options: []string{"bind"}, UIDMappings: one},
		{Destination: "/x", Type: "bind", Source: "/", Options: []string{"bind", "idmap"}},
	} {
		spec, f := baseSpec(), fixedFacts()
		spec.Mounts = append(spec.Mounts, m)
		_, err := compilePlan(spec, f)
		if errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), "mounts[4]") {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

func TestTmpfsStartsWithWhatTheImageHas(t *testing.T) {
	s := newSandbox(t)
	s.must(os.MkdirAll(s.path("data/deep/empty"), 0o750))
	s.must(os.WriteFile(s.path("data/deep/file"), []byte("content"), 0o600))
	s.must(os.WriteFile(s.path("data/program"), nil, 0o600))
	s.must(os.Chown(s.path("data/program"), 12, 34))
	s.must(syscall.Chmod(s.path("data/program"), 0o4711))
	s.must(os.Symlink("/etc/passwd", s.path("data/link")))
	s.must(syscall.Mkfifo(s.path("data/fifo"), 0o640))
	s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m"}})
	s.want(`cd /data; cat deep/file; echo; stat -c "%n %a %u %g %F" deep deep/empty deep/file program link fifo; readlink link; touch /data/new; grep -c " /data tmpfs" /proc/mounts`,
		"content\ndeep 750 0 0 directory\ndeep/empty 750 0 0 directory\ndeep/file 600 0 0 regular file\nprogram 4711 12 34 regular empty file\n"+
			"link 777 0 0 symbolic link\nfifo 640 0 0 fifo\n/etc/passwd\n1")
	if _, err := os.Stat(s.path("data/new")); !os.IsNotExist(err) {
		t.Error("the image's directory was written", err)
	}
	s.spec.Mounts[len(s.spec.Mounts)-1].Options[1] = "size=4k" // too small for the content
	s.must(os.WriteFile(s.path("data/big"), make([]byte, 1<<20), 0o600))
	if r := s.run("true"); r.err == nil || !strings.Contains(r.err.Error(), "tmpcopyup of \"/data\": no space left") {
		t.Errorf("got %+v", r)
	}
	s.wantNothingLeft()
}

func TestRemountsChangeTheFlagsOfWhatIsThere(t *testing.T) {
	s := newSandbox(t)
	s.spec.Mounts = append(s.spec.Mounts,
		specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/x", Type: "bind", Source: "none", Options: []string{"bind", "remount", "ro", "nosuid"}})
	s.want(`grep " /x " /proc/mounts | while read a b c d e; do echo ${d%,inode64}; done`, "ro,nosuid,relatime")
}

// A tmpfs is made read-only last, by a remount, too.
func TestRemountMakesATmpfsReadonly(t *testing.T) {
	s := newSandbox(t)
	s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"remount", "ro"}},
		specs.Mount{Destination: "/tmp/below", Type: "tmpfs", Source: "tmpfs"})
	s.want("touch /tmp/x 2>/dev/null || echo refused; touch /tmp/below/x && echo written", "refused\nwritten")
}

// What mount(2) cannot change in a remount is changed, too, and /proc can be remounted.
func TestRemountsTakeAllOptions(t *testing.T) {
	s := newSandbox(t)
	s.must(os.MkdirAll(filepath.Join(s.dir, "data/sub"), 0o755))
	s.spec.Mounts = append(s.spec.Mounts,
		specs.Mount{Destination: "/rec", Type: "bind", Source: "data", Options: []string{"bind"}},
		specs.Mount{Destination: "/rec/sub", Type: "tmpfs", Source: "inner"},
		specs.Mount{Destination: "/rec", Type: "bind", Source: "data", Options: []string{"bind", "remount", "rro", "shared"}},
		specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"remount", "hidepid=2"}},
		specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"bind", "remount", "nosuid", "ro"}},
		specs.Mount{Destination: "/late", Type: "tmpfs", Source: "late", Options: []string{"rro", "noatime", "strictatime"}},
		specs.Mount{Destination: "/late/in", Type: "tmpfs", Source: "later"})
	out := s.sh(`
		grep -E " /(rec|late)" /proc/self/mountinfo | while read a b c d e f g h; do echo $e $f $g; done
		grep " /proc proc " /proc/mounts | while read a b c d e; do echo $d; done`)
	want := "/rec ro,relatime shared:\n/rec/sub ro,relatime -\n/late ro -\n/late/in rw,relatime -\nro,nosuid,relatime,hidepid=invisible"
	if got := cutDigits(out); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	s.mapped()
	s.spec.Mounts = append(baseSpec().Mounts, specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"bind", "remount", "idmap"}})
	if r := s.run("true"); errdefs.CodeOf(r.err) != errdefs.SpecInvalid || !strings.Contains(r.stderr, "a remount cannot change an id map") {
		t.Errorf("%+v", r)
	}
}

func TestReadonlyPathThatIsTheRoot(t *testing.T) {
	s := newSandbox(t)
	s.spec.Linux.ReadonlyPaths = []string{"/"}
	s.want("touch /x 2>/dev/null || echo read-only; echo > /dev/null", "read-only")
}

// A file of the name that is not the device is an error; a default device is then
// whatever the image has.
func TestDevicesThatAreThereAlready(t *testing.T) {
	for name, c := range map[string]struct {
		devices []specs.LinuxDevice
		text    string
	}{
		"file":         {[]specs.LinuxDevice{{Path: "/etc/passwd", Type: "c", Major: 1, Minor: 3}}, `making device "/etc/passwd": file exists`},
		"directory":    {[]specs.LinuxDevice{{Path: "/tmp", Type: "p"}}, `making device "/tmp": file exists`},
		"link":         {[]specs.LinuxDevice{{Path: "/bin/sh", Type: "b", Major: 7}}, `making device "/bin/sh": file exists`},
		"other":        {[]specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/x", Type: "c", Major: 1, Minor: 5}}, `making device "/dev/x": file exists`},
		"same":         {[]specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/x", Type: "u", Major: 1, Minor: 3}, {Path: "/dev/p", Type: "p"}, {Path: "/dev/p", Type: "p"}}, ""},
		"mapped other": {[]specs.LinuxDevice{{Path: "/dev/zero", Type: "c", Major: 1, Minor: 3}}, `making device "/dev/zero": no such device`},
		"mapped same":  {[]specs.LinuxDevice{{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5}, {Path: "/dev/p", Type: "p"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			if strings.HasPrefix(name, "mapped") {
				s.mapped()
			}
			s.spec.Linux.Devices = c.devices
			r := s.run("sh", "-c", "test ! -e /dev/p -o -p /dev/p")
			if c.text == "" && r.status != 0 || c.text != "" && (r.err == nil || !strings.Contains(r.err.Error(), c.text)) {
				t.Errorf("%+v %s", r, r.stderr)
			}
			s.wantNothingLeft()
		})
	}
}

func TestMountsAndTheirOptions(t *testing.T) {
	s := newSandbox(t)
	s.must(os.MkdirAll(filepath.Join(s.dir, "data/sub"), 0o755))
	s.must(os.WriteFile(filepath.Join(s.dir, "data/file"), []byte("bound"), 0o644))
	s.must(os.MkdirAll(s.path("kept"), 0o1711))
	s.must(os.Chmod(s.path("kept"), 0o711|os.ModeSticky))
	s.spec.Mounts = append(s.spec.Mounts,
		specs.Mount{Destination: "/made/deep/file", Type: "bind", Source: "data/file", Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/made/dir", Type: "bind", Source: "data", Options: []string{"rbind", "nosuid", "noexec", "rprivate"}},
		specs.Mount{Destination: "/kept", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k", "ro", "nodev", "acl"}},
		specs.Mount{Destination: "/kept/inner", Type: "tmpfs", Source: "inner", Options: []string{"mode=700", "noatime", "rshared"}},
		specs.Mount{Destination: "/rec", Type: "bind", Source: "data", Options: []string{"rbind", "rro"}},
	)
	out := s.sh(`
		cat /made/deep/file; echo
		(echo x > /made/deep/file) 2>/dev/null || echo file is read-only
		echo x > /made/dir/new && echo dir is writable
		stat -c %a /kept /kept/inner
		touch /kept/x 2>/dev/null || echo tmpfs is read-only
		touch /rec/x 2>/dev/null || echo tree is read-only
		grep -E " /(made|kept|rec)" /proc/self/mountinfo | while read a b c d e f g h; do echo $e $f $g; done`)
	want := `bound
file is read-only
dir is writable
1711
700
tmpfs is read-only
tree is read-only
/made/deep/file ro,relatime -
/made/dir rw,nosuid,noexec,relatime -
/kept ro,nodev,relatime -
/kept/inner rw,noatime shared:`
	if got := cutDigits(out); !strings.HasPrefix(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// cutDigits drops the numbers of peer groups, and that the host's are masters.
func cutDigits(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line, _, slave := strings.Cut(line, "master:")
		if slave {
			line += "-"
		}
		lines[i] = line
		if at := strings.Index(line, "shared:"); at >= 0 {
			lines[i] = line[:at+len("shared:")]
		}
	}
	return strings.Join(lines, "\n")
}

// The stage has made a read-only sysfs before it knows what it is to mount.
func TestSysfsIsAsTheSpecSays(t *testing.T) {
	for _, mode := range []string{"ro", "rw"} {
		s := newSandbox(t)
		if !private(s.spec, specs.NetworkNamespace) || !private(s.spec, specs.MountNamespace) {
			t.Fatal("the sandbox shares the namespaces that this is about")
		}
		for i := range s.spec.Mounts {
			if m := &s.spec.Mounts[i]; m.Type == "sysfs" {
				m.Destination, m.Options = "/elsewhere", []string{"nosuid", "noexec", "nodev", mode}
			}
		}
		s.want(`grep " /elsewhere " /proc/self/mountinfo | while read a b c d e f g h; do echo $f $h; done; ls /elsewhere/class/net`,
			mode+",nosuid,nodev,noexec,relatime sysfs sysfs "+mode+"\nlo")
	}
}

// What hides a directory is empty and stays so: a directory of the container's procfs, if
// that is all of one, else a tmpfs.
func TestMaskedDirectoriesAreEmpty(t *testing.T) {
	for name, test := range map[string]struct {
		proc []string // options; nil: no procfs
		want string
	}{
		"whole procfs": {[]string{"nosuid", "noexec", "nodev"}, "ro,nosuid,nodev,noexec,relatime - proc"},
		"of processes": {[]string{"nosuid", "noexec", "nodev", "subset=pid"}, "ro,relatime - tmpfs"},
		"no procfs":    {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			for _, dir := range []string{"masked", "masked too"} {
				s.must(os.MkdirAll(s.path(dir+"/content"), 0o755))
			}
			s.spec.Mounts = slices.DeleteFunc(s.spec.Mounts, func(m specs.Mount) bool { return m.Type == "proc" })
			if test.proc != nil {
				s.spec.Mounts = slices.Insert(s.spec.Mounts, 0, specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: test.proc})
			}
			s.spec.Linux.ReadonlyPaths, s.spec.Linux.MaskedPaths = nil, []string{"/masked", "/masked too", "/not there"}
			s.want(`for d in /masked "/masked too"; do ls -A "$d" | wc -l; touch "$d/x" 2>/dev/null || mkdir "$d/x" 2>/dev/null || echo refused; done`,
				"0\nrefused\n0\nrefused")
			if test.proc == nil {
				return
			}
			s.want(`grep '/masked' /proc/self/mountinfo | while read a b c d e flags dash type rest; do echo $flags $dash $type; done`, test.want+"\n"+test.want)
		})
	}
}
