package layer

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// A number that the pool has given to somebody else is never taken for ours,
// wherever the making of a device ends: what is ours goes with its directory.
func TestADeviceThatWasOnlyTriedIsNotDeleted(t *testing.T) {
	taken := errdefs.AlreadyExists.Errorf("create_thin: %w", unix.EEXIST)
	for name, answers := range map[string][]error{
		"no room":                         {unix.ENOSPC},
		"no room after one that is taken": {taken, taken, unix.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := &thin{next: 7}, t.TempDir() // without a pool: a deletion in it panics
			asked := 0
			_, err := d.number(dir, 1<<20, func(id int) error {
				// What the file says is what a start finds after a kill.
				if device, err := readDevice(dir); err != nil || device.ID != id || !device.Tried {
					t.Errorf("when %d is asked for, the file says %+v, %v", id, device, err)
				}
				asked++
				return answers[asked-1]
			})
			if err == nil || asked != len(answers) {
				t.Fatalf("asked %d times: %v", asked, err)
			}
			if err := d.delete(dir); err != nil {
				t.Fatal(err)
			}
			if exists(filepath.Join(dir, deviceFile)) {
				t.Error("the file is there")
			}
		})
	}
}

func TestADeviceThatWasMadeIsOurs(t *testing.T) {
	d, dir := &thin{next: 7}, t.TempDir()
	made, err := d.number(dir, 1<<20, func(int) error { return nil })
	if err != nil || made != (thinDevice{ID: 7, Size: 1 << 20}) {
		t.Errorf("%+v, %v", made, err)
	}
	if device, err := readDevice(dir); err != nil || device != made {
		t.Errorf("the file says %+v, %v", device, err)
	}
}
