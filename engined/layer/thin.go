package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	units "github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/layer/thinpool"
	"github.com/engined/engined/proto/errdefs"
)

// thin keeps each layer as a file system of its own on a thin device: a
// snapshot of the device of the layer below. Docker calls it devicemapper.
//
//	<data root>/thinpool/            the pool, where nobody gave another one
//	├── data, metadata               its loop files
//	└── base/device                  an empty file system; bottom layers are its snapshots
//	<data root>/devicemapper/<dir>/
//	├── device                       the thin device's id and size; written as tried
//	│                                before it exists and removed after it is gone
//	└── diff/                        mount point while it is written
type thin struct {
	thinConfig
	pool *thinpool.Pool
	dir  string // <data root>/devicemapper

	mu   sync.Mutex
	next int      // the id to try next; guarded by mu
	busy []string // directories whose devices were in use when they were to go; guarded by mu
}

// thinDevice is the content of a file device.
type thinDevice struct {
	ID   int   `json:"id"`
	Size int64 `json:"size"` // bytes
	// Tried is true until the pool has made the device: before, one of that id
	// may be somebody else's.
	Tried bool `json:"tried,omitempty"`
	Ready bool `json:"ready"` // it is complete
	// ReadOnly is true for layers of images once they are unpacked.
	ReadOnly   bool   `json:"read_only"`
	Filesystem string `json:"filesystem,omitempty"` // of the base
}

const deviceFile = "device"

func probeThin(string) error {
	if err := thinpool.Available(); err != nil {
		return err
	}
	return nil
}

func openThin(dir string, options map[string]string, log *slog.Logger) (driver, error) {
	config, err := parseThin(options)
	if err != nil {
		return nil, err
	}
	t := &thin{thinConfig: config, dir: dir}
	if err := t.open(); err != nil {
		return nil, err
	}
	if t.pooled == "" && t.data == "" {
		log.Warn("the thin pool lies on loop devices, which is slow and not meant for production: use --storage-opt dm.thinpooldev")
	}
	return t, nil
}

// poolDir is where what is the driver's and no layer lies.
func (t *thin) poolDir() string { return filepath.Join(filepath.Dir(t.dir), "thinpool") }
func (t *thin) base() string    { return filepath.Join(t.poolDir(), "base") }

func (t *thin) open() error {
	if err := os.MkdirAll(t.base(), 0o700); err != nil {
		return err
	}
	config, err := t.poolConfig(t.poolDir())
	if err != nil {
		return err
	}
	if t.pool, err = thinpool.Open(config); err != nil {
		return err
	}
	if err = t.numberFrom(); err == nil {
		err = t.makeBase()
	}
	if err != nil {
		return errors.Join(err, t.close())
	}
	return nil
}

// numberFrom finds the first id above all that are in use. One in a file that
// cannot be read is found to be taken when it is tried.
func (t *thin) numberFrom() error {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	dirs := []string{t.base()}
	for _, entry := range entries {
		dirs = append(dirs, filepath.Join(t.dir, entry.Name()))
	}
	t.next = 1
	for _, dir := range dirs {
		device, err := readDevice(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errdefs.KindOf(err) == errdefs.DataLoss {
			continue
		}
		if err != nil {
			return err
		}
		t.next = max(t.next, device.ID+1)
	}
	return nil
}

// makeBase makes the empty file system that every image begins with.
func (t *thin) makeBase() error {
	device, err := readDevice(t.base())
	if err == nil && device.Ready {
		if device.Size != t.baseSize && t.baseSizeGiven {
			return errdefs.InvalidArgument.Errorf("storage-opt dm.basesize: the pool was begun with %s, which cannot be changed to %s", units.BytesSize(float64(device.Size)), units.BytesSize(float64(t.baseSize)))
		}
		if t.filesystem != "" && t.filesystem != device.Filesystem {
			return errdefs.InvalidArgument.Errorf("storage-opt dm.fs: the pool was begun with %s, which cannot be changed to %s", device.Filesystem, t.filesystem)
		}
		t.baseSize, t.filesystem = device.Size, device.Filesystem
		return nil
	}
	if t.filesystem == "" {
		t.filesystem = "ext4"
	}
	if err == nil { // somebody was killed here
		err = t.delete(t.base())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if device, err = t.number(t.base(), t.baseSize, t.pool.Create); err != nil {
		return err
	}
	if err := t.format(device); err != nil {
		return errors.Join(err, t.delete(t.base()))
	}
	device.Ready, device.ReadOnly, device.Filesystem = true, true, t.filesystem
	return writeDevice(t.base(), device)
}

// number makes a thin device by create, with a fresh id that dir tells. Whoever is
// killed between the two leaves a device that nobody knows: that is better than
// to take one for ours that a stranger to the pool has made.
func (t *thin) number(dir string, size int64, create func(id int) error) (thinDevice, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const ids = 1 << 24 // of a pool
	for range ids {
		device := thinDevice{ID: t.next, Size: size, Tried: true}
		t.next = t.next%(ids-1) + 1
		if err := writeDevice(dir, device); err != nil {
			return device, err
		}
		err := create(device.ID)
		if err == nil {
			return t.made(dir, device)
		}
		if errdefs.KindOf(err) != errdefs.AlreadyExists {
			return device, err
		}
	}
	return thinDevice{}, errdefs.ResourceExhausted.Errorf("the pool has no number left for a device")
}

// made writes down that the device is there and ours.
func (t *thin) made(dir string, device thinDevice) (thinDevice, error) {
	device.Tried = false
	if err := writeDevice(dir, device); err != nil {
		return device, errors.Join(err, t.pool.Delete(device.ID))
	}
	return device, nil
}

func readDevice(dir string) (thinDevice, error) {
	var device thinDevice
	raw, err := os.ReadFile(filepath.Join(dir, deviceFile))
	if err != nil {
		return device, err
	}
	if err := json.Unmarshal(raw, &device); err != nil {
		return device, errdefs.DataLoss.Errorf("%s/%s: %w", dir, deviceFile, err)
	}
	return device, nil
}

// writeDevice brings the file to the disk before the pool learns of the device.
func writeDevice(dir string, device thinDevice) error {
	raw, err := json.Marshal(device)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, deviceFile)
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(raw)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// close lets the pool go with the last device that is active in it.
func (t *thin) close() error {
	var err error
	if t.pooled == "" {
		err = t.pool.Deactivate()
	}
	return errors.Join(err, t.pool.Close())
}

func (*thin) whiteouts() whiteoutStyle { return whiteoutDeletes }

func (*thin) check(dir string) error {
	_, err := readDevice(dir)
	return err
}

func (t *thin) stage(ctx context.Context, dir string, lowers []string) error {
	if err := t.create(ctx, dir, lowers, 0); err != nil {
		return err
	}
	if _, err := t.mount(ctx, dir, lowers); err != nil {
		return err
	}
	device, err := readDevice(dir)
	if err != nil {
		return err
	}
	device.ReadOnly = true // nobody reads before it is unmounted
	return writeDevice(dir, device)
}

func (t *thin) create(ctx context.Context, dir string, lowers []string, size int64) error {
	if err := t.enoughFree(); err != nil {
		return err
	}
	below := t.base()
	if len(lowers) > 0 {
		below = lowers[0]
	}
	origin, err := readDevice(below)
	if err != nil {
		return fmt.Errorf("the layer below: %w", err)
	}
	if size == 0 {
		size = origin.Size
	}
	if size < origin.Size {
		return errdefs.InvalidArgument.Errorf("devmapper: Container size cannot be smaller than %s", units.HumanSize(float64(origin.Size)))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "diff"), 0o700); err != nil {
		return err
	}
	size -= size % sectorSize
	device, err := t.number(dir, size, func(id int) error { return t.pool.Snapshot(id, origin.ID) })
	if err != nil {
		return err
	}
	if size > origin.Size {
		if err := t.grow(ctx, dir, device); err != nil {
			return err
		}
	}
	device.Ready = true
	return writeDevice(dir, device)
}

// enoughFree refuses new devices while those that are need what is left: a full
// pool makes all of them fail.
func (t *thin) enoughFree() error {
	if t.minFree == 0 {
		return nil
	}
	u, err := t.pool.Usage()
	if err != nil {
		return err
	}
	for what, free := range map[string]struct{ used, total int64 }{"data": {u.Data, u.DataTotal}, "metadata": {u.Metadata, u.MetadataTotal}} {
		if left, least := free.total-free.used, free.total/100*t.minFree; left < least {
			return errdefs.ResourceExhausted.Errorf("devmapper: Thin Pool has %s free for %s, less than %d%% (%s): make the pool larger or set dm.min_free_space",
				units.HumanSize(float64(left)), what, t.minFree, units.HumanSize(float64(least)))
		}
	}
	return nil
}

// delete deletes dir's thin device, then its file. One that was only tried is
// not touched.
func (t *thin) delete(dir string) error {
	device, err := readDevice(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !device.Tried {
		if t.discard {
			t.giveBack(device)
		}
		if err := t.pool.Delete(device.ID); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(dir, deviceFile))
}

// giveBack punches the device's own blocks out of the pool's data file. It is
// worth no failure: the pool itself gets them back by the deletion.
func (t *thin) giveBack(device thinDevice) {
	active, err := t.pool.Activate(device.ID, device.Size)
	if err != nil {
		return
	}
	_ = active.Discard()
	_ = active.Close()
}

// remove deletes the device when its last user is gone: a mount namespace takes
// a moment to go after its last process, and somebody may be in there still.
// What lasts longer is tried again with the next removal, and at the next start.
func (t *thin) remove(dir string) error {
	t.mu.Lock()
	again := t.busy
	t.busy = nil
	t.mu.Unlock()
	var failed []error
	for _, late := range again {
		failed = append(failed, t.removeNow(late, 1))
	}
	const attempts = 20
	return errors.Join(append(failed, t.removeNow(dir, attempts))...)
}

func (t *thin) removeNow(dir string, attempts int) error {
	if err := t.unmount(dir); err != nil {
		return err
	}
	for range attempts {
		err := t.delete(dir)
		if err == nil {
			return os.RemoveAll(dir)
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(50 * time.Millisecond) // nothing announces the end of a mount
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy = append(t.busy, dir)
	return nil
}

func (t *thin) size(ctx context.Context, dir string, lowers []string) (size int64, err error) {
	upper, done, err := t.read(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, done()) }()
	below := t.base()
	if len(lowers) > 0 {
		below = lowers[0]
	}
	lower, doneBelow, err := t.read(ctx, below)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, doneBelow()) }()
	return addedSize(ctx, upper, lower)
}

// below is nothing: the pool keeps what a snapshot shares.
func (*thin) below() (map[string]bool, error) { return nil, nil }

func (t *thin) describe(dir string, _ []string, _ bool) map[string]string {
	device, err := readDevice(dir)
	if err != nil {
		return nil
	}
	return map[string]string{"DeviceId": fmt.Sprint(device.ID), "DeviceSize": fmt.Sprint(device.Size),
		"DeviceName": fmt.Sprintf("%s-%d", t.pool.Name(), device.ID)}
}

// status is as dockerd's.
func (t *thin) status() [][2]string {
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	u, err := t.pool.Usage()
	if err != nil {
		return [][2]string{{"Pool Name", t.pool.Name()}, {"Error", err.Error()}}
	}
	pairs := [][2]string{{"Pool Name", t.pool.Name()}, {"Pool Blocksize", size(u.BlockSize)}, {"Base Device Size", size(t.baseSize)},
		{"Backing Filesystem", t.filesystem}, {"Udev Sync Supported", "false"}}
	if t.pooled == "" && t.data == "" {
		pairs = append(pairs, [2]string{"Data loop file", filepath.Join(t.poolDir(), "data")}, [2]string{"Metadata loop file", filepath.Join(t.poolDir(), "metadata")})
	}
	pairs = append(pairs, [][2]string{{"Data Space Used", size(u.Data)}, {"Data Space Total", size(u.DataTotal)}, {"Data Space Available", size(u.DataTotal - u.Data)},
		{"Metadata Space Used", size(u.Metadata)}, {"Metadata Space Total", size(u.MetadataTotal)}, {"Metadata Space Available", size(u.MetadataTotal - u.Metadata)},
		{"Thin Pool Minimum Free Space", size(u.DataTotal / 100 * t.minFree)}, {"Deferred Removal Enabled", "true"}, {"Deferred Deletion Enabled", "true"}}...)
	if u.Failed != "" {
		pairs = append(pairs, [2]string{"Pool State", strings.TrimSpace(u.Failed)})
	}
	return pairs
}
