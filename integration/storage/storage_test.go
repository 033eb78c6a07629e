package storage

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
)

// place is a driver on a file system.
type place struct {
	name   string
	driver string
	mkfs   []string // nothing: wherever temporary directories lie
	mount  string   // options
	flags  []string // of engined
	status []string // names that docker info shows, as dockerd's
	limit  string   // a --storage-opt size that works, and is less than 500 MB
}

var places = []place{
	{name: "overlay2", driver: "overlay2", status: []string{"Backing Filesystem", "Supports d_type", "Using metacopy", "Native Overlay Diff", "userxattr"}},
	{name: "vfs", driver: "vfs"},
	{name: "btrfs", driver: "btrfs", mkfs: []string{"mkfs.btrfs", "-q"}, status: []string{"Btrfs"}, limit: "32M"},
	{name: "overlay2 on xfs with quota", driver: "overlay2", mkfs: []string{"mkfs.xfs", "-q"}, mount: ",pquota", limit: "32M"},
	{name: "overlay2 on ext4 with quota", driver: "overlay2", mkfs: []string{"mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota"},
		mount: ",prjquota", limit: "32M"},
	{name: "devicemapper", driver: "devicemapper", limit: "400M", status: []string{"Pool Name", "Pool Blocksize", "Base Device Size", "Backing Filesystem"},
		flags: []string{"--storage-opt", "dm.basesize=320M", "--storage-opt", "dm.loopdatasize=4G", "--storage-opt", "dm.loopmetadatasize=16M"}},
}

func TestContainersAndImagesOnEachDriver(t *testing.T) {
	harness.NeedRoot(t)
	verbs := newVerbRun(t)
	t.Run("reference", verbs.onDockerd)
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			root := p.prepare(t)
			stack := harness.New(t, harness.Options{Engined: append([]string{"--data-root", root, "--storage-driver", p.driver}, p.flags...)})
			docker := harness.AnyCLI(t).At(t, stack.Host())
			p.checkInfo(t, docker)
			runAndCrash(t, stack, docker)
			verbs.onEngined(t, docker)
			saveAndLoad(t, docker)
			p.checkLimit(t, docker)
			removeAll(t, docker, filepath.Join(root, p.driver))
		})
	}
}

// prepare returns a data root on a file system of its own, or skips the test.
// It is unmounted after the instance has ended.
func (p place) prepare(t *testing.T) (root string) {
	t.Helper()
	dir := harness.TempDir(t)
	root = filepath.Join(dir, "data")
	if err := os.Mkdir(root, 0o711); err != nil {
		t.Fatal(err)
	}
	if p.mkfs != nil {
		mountLoop(t, filepath.Join(dir, "image"), root, p)
	}
	p.skipUnlessItWorks(t, root)
	return root
}

func mountLoop(t *testing.T, image, root string, p place) {
	t.Helper()
	if _, err := exec.LookPath(p.mkfs[0]); err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(p.mkfs[0], append(slices.Clone(p.mkfs[1:]), image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", p.mkfs[0], err, out)
	}
	kind := strings.TrimPrefix(p.mkfs[0], "mkfs.")
	if out, err := exec.Command("mount", "-t", kind, "-o", "loop"+p.mount, image, root).CombinedOutput(); err != nil {
		t.Skipf("the kernel does not mount %s%s: %s", kind, p.mount, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Errorf("unmounting the file system: %v", err)
		}
	})
}

// skipUnlessItWorks asks the engine itself, which must then say what is missing.
func (p place) skipUnlessItWorks(t *testing.T, root string) {
	t.Helper()
	if p.driver != "devicemapper" {
		return
	}
	if _, err := os.Stat("/sys/class/misc/device-mapper"); err == nil || exec.Command("modprobe", "dm_thin_pool").Run() == nil {
		return
	}
	said := refusal(t, root, "--storage-driver", p.driver)
	if !strings.Contains(said, "storage driver devicemapper does not work under "+root+": the kernel has no device mapper (modprobe dm_mod; CONFIG_BLK_DEV_DM)") {
		t.Errorf("engined says %s", said)
	}
	t.Skip("the kernel has no device mapper")
}

// refusal starts an engined that must not start and returns what it says.
func refusal(t *testing.T, root string, flags ...string) string {
	t.Helper()
	dir := harness.TempDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	argv := append([]string{"-H", "unix://" + filepath.Join(dir, "e.sock"), "--data-root", root, "--exec-root", filepath.Join(dir, "x"),
		"--pidfile", filepath.Join(dir, "e.pid"), "--bridge", "none"}, flags...)
	out, err := exec.CommandContext(ctx, harness.Binary("engined"), argv...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || ctx.Err() != nil {
		t.Errorf("engined %v ended with %v: %s", flags, err, out)
	}
	return string(out)
}

func (p place) checkInfo(t *testing.T, docker harness.CLI) {
	t.Helper()
	var info struct {
		Driver       string
		DriverStatus [][2]string
	}
	if err := json.Unmarshal([]byte(docker.Must(t, "info", "--format", "{{json .}}")), &info); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, pair := range info.DriverStatus {
		names = append(names, pair[0])
	}
	if info.Driver != p.driver || p.status != nil && !slices.Equal(names[:min(len(names), len(p.status))], p.status) {
		t.Errorf("info shows %s %v, want %s %v", info.Driver, names, p.driver, p.status)
	}
}

// runAndCrash changes a container, kills engined, and goes on with it.
func runAndCrash(t *testing.T, stack *harness.Stack, docker harness.CLI) {
	t.Helper()
	docker.Must(t, "run", "--name", "c1", harness.Image, "sh", "-c", "echo written >/new; rm /etc/passwd; mkdir /d; ln /new /d/link; test ! -e /again")
	running := strings.TrimSpace(docker.Must(t, "run", "-d", "--name", "c2", harness.Image, "sh", "-c", "echo alive >/file; sleep 1000"))
	stack.Engined.Kill()
	stack.StartEngined()
	if got := docker.Must(t, "exec", running, "cat", "/file"); got != "alive\n" {
		t.Errorf("in the container that ran on: %q", got)
	}
	docker.Must(t, "rm", "-f", "c2")
	docker.Must(t, "start", "-a", "c1") // the same command: everything is there
	copied := docker.Must(t, "inspect", "--size", "--format", "{{.SizeRw}} {{.GraphDriver.Name}}", "c1")
	if !strings.HasPrefix(copied, "8 ") { // "written" and a newline, once
		t.Errorf("the container's size is %s", copied)
	}
}

// saveAndLoad lets an image go out and in; its layers have the same digests.
func saveAndLoad(t *testing.T, docker harness.CLI) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	layers := func() string {
		return docker.Must(t, "image", "inspect", "--format", "{{json .RootFS.Layers}}", harness.Image)
	}
	before := layers()
	docker.Must(t, "save", "-o", archive, harness.Image)
	docker.Must(t, "rm", "-f", "c1")
	docker.Must(t, "rmi", harness.Image)
	docker.Must(t, "load", "-i", archive)
	if after := layers(); after != before {
		t.Errorf("layers %s before and %s after", before, after)
	}
	if got := docker.Must(t, "run", "--rm", harness.Image, "cat", "/etc/passwd"); !strings.Contains(got, "root") {
		t.Errorf("the loaded image has %q", got)
	}
}

// checkLimit writes 48 MB, or 450, into a container that may have less.
func (p place) checkLimit(t *testing.T, docker harness.CLI) {
	t.Helper()
	if p.limit == "" {
		got := docker.Run(t, "run", "--rm", "--storage-opt", "size=32M", harness.Image, "true")
		if got.Status != 125 || !strings.Contains(got.Stderr, "--storage-opt is supported only for "+strings.TrimSuffix(p.driver, "2")) {
			t.Errorf("a size: %d %s", got.Status, got.Stderr)
		}
		return
	}
	count := "48"
	if p.limit == "400M" {
		count = "450"
	}
	got := docker.Run(t, "run", "--rm", "--storage-opt", "size="+p.limit, harness.Image, "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count="+count, "conv=fsync")
	if got.Status != 1 || !strings.Contains(got.Stderr, "quota exceeded") && !strings.Contains(got.Stderr, "No space left") {
		t.Errorf("more than the limit: %d %s", got.Status, got.Stderr)
	}
}

func removeAll(t *testing.T, docker harness.CLI, dir string) {
	t.Helper()
	docker.Must(t, "rmi", harness.Image)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // removal goes on in the background
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 1 { // the mark whose directory it is
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left in %s: %v", dir, entries)
		}
	}
}

func TestWhatCannotWorkIsSaid(t *testing.T) {
	harness.NeedRoot(t)
	for flags, want := range map[string]string{
		"--storage-driver bogus":                            `unknown storage driver "bogus": expected one of overlay2, btrfs, vfs, devicemapper`,
		"--storage-driver zfs":                              "the zfs driver is not implemented",
		"--storage-driver aufs":                             "aufs",
		"--storage-driver vfs --storage-opt vfs.colour=red": "vfs: unknown option vfs.colour",
		"--storage-driver overlay2 --storage-opt x":         "unable to parse key/value option: x",
	} {
		if said := refusal(t, harness.TempDir(t), strings.Fields(flags)...); !strings.Contains(said, want) {
			t.Errorf("%s: %s, want %q", flags, said, want)
		}
	}
}

func TestTheEnvironmentChoosesTheDriver(t *testing.T) {
	t.Setenv("DOCKER_DRIVER", "vfs")
	stack := harness.New(t, harness.Options{NoImage: true, Engined: []string{"--storage-driver", "overlay2"}})
	if got := harness.AnyCLI(t).At(t, stack.Host()).Must(t, "info", "--format", "{{.Driver}}"); got != "vfs\n" {
		t.Errorf("the driver is %s", got)
	}
}
