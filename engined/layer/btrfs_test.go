package layer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/layer/subvolume"
	"github.com/engined/engined/proto/errdefs"
)

func TestNestedSubvolumesGoWithTheLayer(t *testing.T) {
	s := open(t, filepath.Join(onBtrfs(t), "data"), "btrfs")
	root := s.mustMount(t, "c1", image(t, s).Chain)
	// A container makes subvolumes in one another, and below directories.
	at := root
	for i := range 4 {
		at = filepath.Join(at, fmt.Sprintf("d%d", i))
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		at = filepath.Join(at, "sub")
		if err := subvolume.Create(at); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "file"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outer := filepath.Join(root, "d0", "sub")
	run(t, "btrfs", "property", "set", outer, "ro", "true")
	elsewhere := filepath.Join(t.TempDir(), "kept")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(root, "outward")); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	onlyLayers(t, s, 3)
	if left := strings.TrimSpace(run(t, "btrfs", "subvolume", "list", "-o", s.root)); strings.Contains(left, "sub") {
		t.Errorf("left: %s", left)
	}
	if !exists(elsewhere) {
		t.Error("a link was followed")
	}
}

func TestBtrfsRefusesLessThanItsMinimum(t *testing.T) {
	s := openWith(t, filepath.Join(onBtrfs(t), "data"), Options{Driver: "btrfs", DriverOptions: []string{"btrfs.min_space=1G"}})
	err := s.Create(t.Context(), "c1", "", CreateOptions{StorageOpt: map[string]string{"size": "10M"}})
	if errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), "btrfs.min_space") {
		t.Errorf("got %v", err)
	}
	onlyLayers(t, s, 0)
}

func TestVFSSharesBlocksWhereItCan(t *testing.T) {
	for name, root := range map[string]func(testing.TB) string{
		"btrfs": onBtrfs, "xfs": func(t testing.TB) string { return loop(t, "", "mkfs.xfs", "-q", "-m", "reflink=1") }} {
		t.Run(name, func(t *testing.T) {
			root := root(t)
			s := open(t, filepath.Join(root, "data"), "vfs")
			base := s.mustRegister(t, "", file("big", strings.Repeat("0123456789abcdef", 2<<20))) // 32 MiB
			before := freeOf(t, root)
			for i := range 5 {
				s.mustMount(t, fmt.Sprintf("c%d", i), base.Chain)
			}
			if used := before - freeOf(t, root); used > 16<<20 {
				t.Errorf("five containers on 32 MiB took %d MiB", used>>20)
			}
		})
	}
}

func freeOf(t *testing.T, path string) int64 {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var stat unix.Statfs_t
	if err := unix.Syncfs(fd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstatfs(fd, &stat); err != nil {
		t.Fatal(err)
	}
	return int64(stat.Bfree) * stat.Bsize
}

func TestVFSKeepsHoles(t *testing.T) {
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	sparse, err := os.Create(filepath.Join(from, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1 << 20, 1 << 30} {
		if _, err := sparse.WriteAt([]byte("data"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := sparse.Truncate(3 << 30); err != nil {
		t.Fatal(err)
	}
	if err := sparse.Close(); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(to, "sparse"), &stat); err != nil || stat.Size != 3<<30 || stat.Blocks*512 > 1<<20 {
		t.Errorf("size %d, %d blocks, %v", stat.Size, stat.Blocks, err)
	}
	copied, err := os.Open(filepath.Join(to, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	content := make([]byte, 4)
	if _, err := copied.ReadAt(content, 1<<30); err != nil || string(content) != "data" {
		t.Errorf("%q, %v", content, err)
	}
}

// A damaged file of one thin device is its layer's damage and no other's.
func TestADamagedDeviceFileIsNotFatal(t *testing.T) {
	root := t.TempDir()
	d := &thin{dir: filepath.Join(root, "devicemapper")}
	whole, damaged := filepath.Join(d.dir, "whole"), filepath.Join(d.dir, "damaged")
	for _, dir := range []string{whole, damaged, d.base()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for dir, id := range map[string]int{d.base(): 1, whole: 7} {
		if err := writeDevice(dir, thinDevice{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(damaged, deviceFile), []byte{0}, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.numberFrom(); err != nil || d.next != 8 {
		t.Errorf("next is %d, %v", d.next, err)
	}
	if err := d.check(damaged); errdefs.KindOf(err) != errdefs.DataLoss {
		t.Errorf("checked: %v", err)
	}
	if err := d.check(whole); err != nil {
		t.Error(err)
	}
}

func TestThinOptions(t *testing.T) {
	for _, c := range []struct {
		options map[string]string
		kind    errdefs.Kind
		want    string
	}{
		{map[string]string{"dm.basesize": "x"}, errdefs.InvalidArgument, "dm.basesize: expected a size"},
		{map[string]string{"dm.fs": "btrfs"}, errdefs.InvalidArgument, "expected ext4 or xfs"},
		{map[string]string{"dm.blocksize": "100K"}, errdefs.InvalidArgument, "multiple of 64K"},
		{map[string]string{"dm.min_free_space": "10"}, errdefs.InvalidArgument, "percentage"},
		{map[string]string{"dm.min_free_space": "100%"}, errdefs.InvalidArgument, "percentage"},
		{map[string]string{"dm.datadev": "/dev/x"}, errdefs.InvalidArgument, "dm.metadatadev"},
		{map[string]string{"dm.datadev": "/dev/x", "dm.metadatadev": "/dev/y", "dm.thinpooldev": "z"}, errdefs.InvalidArgument, "dm.thinpooldev"},
		{map[string]string{"dm.use_deferred_removal": "false"}, errdefs.NotImplemented, "dm.use_deferred_removal=false"},
		{map[string]string{"dm.use_deferred_deletion": "perhaps"}, errdefs.InvalidArgument, "true or false"},
		{map[string]string{"dm.directlvm_device": "/dev/sdb"}, errdefs.NotImplemented, "dm.directlvm_device"},
		{map[string]string{"dm.datadev": "/dev/x", "dm.metadatadev": "/dev/y", "dm.fs": "xfs", "dm.min_free_space": "0%", "dm.mountopt": "noatime,discard,logbsize=64k",
			"dm.mkfsarg": "-m 0", "dm.use_deferred_removal": "true", "dm.use_deferred_deletion": "true", "dm.blkdiscard": "true", "dm.loopdatasize": "1G", "dm.loopmetadatasize": "1G"}, "", ""},
	} {
		config, err := parseThin(c.options)
		if c.want == "" && err != nil || c.want != "" && (errdefs.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %s %q", c.options, err, c.kind, c.want)
		}
		if c.want == "" && (config.mountAttributes != unix.MOUNT_ATTR_NOATIME || fmt.Sprint(config.fileOptions) != "[[discard ] [logbsize 64k]]" || len(config.mkfsArguments) != 2 || config.minFree != 0) {
			t.Errorf("parsed as %+v", config)
		}
	}
	if err := probeThin(""); err == nil {
		t.Skip("what is missing cannot be seen: this kernel has device mapper")
	} else if errdefs.KindOf(err) != errdefs.FailedPrecondition || !strings.Contains(err.Error(), "dm_mod") {
		t.Errorf("without device mapper: %v", err)
	}
	if entries, _ := filepath.Glob("/dev/mapper/.*"); len(entries) > 0 {
		t.Errorf("probing left %v", entries)
	}
}
