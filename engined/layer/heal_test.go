package layer

import (
	"bytes"
	"database/sql"
	"path/filepath"
	"testing"
)

// A container that runs on a damaged layer keeps what is left of it when the
// layer is replaced, also over a start of engined. It goes with the mount.
func TestAReplacedLayerStaysWhileItIsMounted(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, "overlay2")
	raw := tarOf(t, file("a", "1"))
	l, err := s.Register(t.Context(), RegisterRequest{Owner: "image/x"}, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	merged := s.mustMount(t, "c1", l.Chain)
	if err := s.db.Update(t.Context(), func(tx *sql.Tx) error { return s.mark(t.Context(), tx, l.Chain, "a test says so") }); err != nil {
		t.Fatal(err)
	}
	healed, err := s.Register(t.Context(), RegisterRequest{Owner: "image/x", Diff: l.Diff}, bytes.NewReader(raw))
	if err != nil || healed.dir == l.dir {
		t.Fatalf("registering it again: %+v, %v", healed, err)
	}
	s.sweeping.Wait()
	again, err := Open(t.Context(), s.db, root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	again.sweeping.Wait()
	for _, dir := range []string{l.dir, healed.dir} {
		if !exists(filepath.Join(s.root, dir, "diff", "a")) {
			t.Errorf("%s is gone (%s was replaced by %s)", dir, l.dir, healed.dir)
		}
	}
	if got := read(t, filepath.Join(merged, "a")); got != "1" {
		t.Errorf("the container reads %q", got)
	}
	again.mustMount(t, "c2", l.Chain)
	if err := again.Unmount(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	again.sweeping.Wait()
	if exists(filepath.Join(s.root, l.dir)) {
		t.Errorf("%s is there, and nothing has it mounted", l.dir)
	}
	if !exists(filepath.Join(s.root, healed.dir)) {
		t.Errorf("%s is gone, and c2 has it mounted", healed.dir)
	}
}

// The kernel shows lowers in two forms, by the way they were given.
func TestLowersAreFoundInMountOptions(t *testing.T) {
	const a, b = "0123456789abcdef", "fedcba9876543210"
	for _, options := range []string{
		"rw,lowerdir=/root/overlay2/" + a + "/diff:/root/overlay2/" + b + "/diff,upperdir=/root/c1/diff,workdir=/root/c1/work",
		"rw,lowerdir=" + a + "/diff:" + b + "/diff,upperdir=c1/diff",
		"rw,lowerdir+=/root/overlay2/" + a + "/diff,lowerdir+=/root/overlay2/" + b + "/diff",
	} {
		if got := lowersIn(options); len(got) != 2 || got[0] != a || got[1] != b {
			t.Errorf("%s: %v", options, got)
		}
	}
	if got := lowersIn("rw,lowerdir=/" + a + "/merged:/" + a + b + "/diff:/x" + b + "/diff"); len(got) != 0 {
		t.Errorf("others: %v", got)
	}
}
