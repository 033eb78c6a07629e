package layer

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

func TestDriverChoice(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	for want, kind := range map[string]errdefs.Kind{"bogus": errdefs.InvalidArgument, "aufs": errdefs.NotImplemented,
		"zfs": errdefs.NotImplemented, "btrfs": errdefs.FailedPrecondition} {
		if _, err := choose(root, want); err == nil || errdefs.KindOf(err) != kind && !strings.Contains(filesystemOf(root), want) {
			t.Errorf("%s: %v, want %s", want, err, kind)
		}
	}
	for _, want := range []string{"overlay2", "overlay"} {
		if k, err := choose(root, want); err != nil || k.name != "overlay2" {
			t.Errorf("%s: %v, %v", want, k, err)
		}
	}
	if k, err := choose(root, ""); err != nil || k.name != "overlay2" {
		t.Errorf("no wish: %v, %v", k, err)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 0 {
		t.Errorf("probing left %v", entries)
	}
	if err := os.MkdirAll(filepath.Join(root, "vfs", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := claim(filepath.Join(root, "overlay2"), false); err != nil {
		t.Fatal(err)
	}
	if k, err := choose(root, ""); err != nil || k.name != "vfs" {
		t.Errorf("the driver with data: %v, %v", k, err)
	}
	if err := os.Mkdir(filepath.Join(root, "overlay2", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := choose(root, ""); errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), "overlay2, vfs") {
		t.Errorf("two drivers with data: %v", err)
	}
}

func TestStorageOptions(t *testing.T) {
	needRoot(t)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, c := range []struct{ driver, option, want string }{
		{"overlay2", "overlay2.bogus=1", "unknown option overlay2.bogus"},
		{"overlay2", "overlay2.size", "unable to parse key/value option: overlay2.size"},
		{"overlay2", "overlay2.size=much", `expected a size as 10G, got "much"`},
		{"overlay2", "overlay2.volatile=maybe", `expected true or false, got "maybe"`},
		{"overlay2", "btrfs.min_space=1G", "unknown option btrfs.min_space"},
		{"vfs", "vfs.x=1", "vfs: unknown option vfs.x"},
		{"btrfs", "btrfs.min_space=-1", "btrfs.min_space: expected a size"},
		{"overlay2", "Overlay2.Override_Kernel_Check=true", ""},
		{"btrfs", "btrfs.min_space=1G", ""},
	} {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == c.driver })
		options, err := kinds[i].parseOptions([]string{c.option})
		if err == nil {
			_, err = kinds[i].open(t.TempDir(), options, log)
		}
		if c.want == "" && err != nil || c.want != "" && (errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s: %v, want %q", c.driver, c.option, err, c.want)
		}
	}
}

func TestADataRootThatOverlayCannotUseIsRefused(t *testing.T) {
	t.Run("no types in directories", func(t *testing.T) {
		root := loop(t, "", "mkfs.ext4", "-q", "-O", "^filetype")
		if err := probeOverlay(root); errdefs.KindOf(err) != errdefs.FailedPrecondition || !strings.Contains(err.Error(), "d_type") {
			t.Errorf("got %v", err)
		}
		if k, err := choose(root, ""); err != nil || k.name != "vfs" {
			t.Errorf("the choice is %v, %v; want vfs", k, err)
		}
	})
	t.Run("an overlay", func(t *testing.T) {
		s := open(t, t.TempDir(), "overlay2")
		root := s.mustMount(t, "c1", "")
		if err := probeOverlay(root); errdefs.KindOf(err) != errdefs.FailedPrecondition || !strings.Contains(err.Error(), "on an overlay itself") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAVolatileLayerIsMarkedUntilItIsUnmounted(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	made, err := openOverlay(dir, map[string]string{"overlay2.volatile": "true"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := made.(overlay)
	c1 := filepath.Join(dir, "c1")
	if err := o.create(t.Context(), c1, nil, 0); err != nil {
		t.Fatal(err)
	}
	root, err := o.mount(t.Context(), c1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if mounts := read(t, "/proc/self/mounts"); !slices.ContainsFunc(strings.Split(mounts, "\n"), func(line string) bool {
		return strings.Contains(line, root) && strings.Contains(line, "volatile")
	}) {
		t.Error("it is not mounted volatile")
	}
	if err := os.WriteFile(filepath.Join(root, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.unmount(c1); err != nil {
		t.Fatal(err)
	}
	if root, err = o.mount(t.Context(), c1, nil); err != nil || !exists(filepath.Join(root, "kept")) {
		t.Fatalf("after an orderly unmount: %v", err)
	}
	// A crash of the machine takes the mount away without anybody's doing.
	if err := unix.Unmount(root, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := o.mount(t.Context(), c1, nil); errdefs.KindOf(err) != errdefs.DataLoss {
		t.Errorf("after a crash: %v", err)
	}
	if err := o.remove(c1); err != nil || exists(c1) {
		t.Errorf("removing it: %v", err)
	}
}
