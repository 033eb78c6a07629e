package libcontainer

import (
	"os"
	"path/filepath"
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
