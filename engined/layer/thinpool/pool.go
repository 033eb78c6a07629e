package thinpool

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// Config says where a pool is or how to make it.
type Config struct {
	Name      string // of the pool's device
	Existing  bool   // it was made by somebody else
	Data      string // file or block device
	Metadata  string // file or block device; zeros at first
	BlockSize int64  // bytes
}

// Pool is an active pool.
type Pool struct {
	control *control
	name    string
	number  uint64

	mu sync.Mutex // one change of devices at a time; held over calls to the kernel alone
}

// Open makes the pool's device, or finds it.
func Open(config Config) (pool *Pool, err error) {
	c, err := openControl()
	if err != nil {
		return nil, err
	}
	p := &Pool{control: c, name: config.Name}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if _, live, err := c.find(p.name); config.Existing && (err != nil || !live) {
		return nil, errdefs.FailedPrecondition.Errorf("there is no active pool %s (lvs, dmsetup ls)", p.name)
	}
	if p.number, err = p.hold(p.name); err != nil {
		return nil, err
	}
	if _, live, err := c.find(p.name); err != nil || !live {
		if err := p.make(config); err != nil {
			return nil, errors.Join(err, c.remove(p.name))
		}
	}
	target, _, err := c.table(p.name, 0)
	if err == nil && target != "thin-pool" {
		err = errdefs.FailedPrecondition.Errorf("the device %s is not a thin pool but %q", p.name, target)
	}
	return p, err
}

// make makes the pool's device from the two below, which stay open with it.
func (p *Pool) make(config Config) error {
	data, err := openBlock(config.Data)
	if err != nil {
		return err
	}
	defer data.Close()
	metadata, err := openBlock(config.Metadata)
	if err != nil {
		return err
	}
	defer metadata.Close()
	sectors, err := sectorsOf(data)
	if err != nil {
		return err
	}
	// A block is given to one device alone and has a file system's content:
	// zeroing it before would write everything twice.
	const lowWater = 32768
	table := fmt.Sprintf("%s %s %d %d 1 skip_block_zeroing", metadata.Name(), data.Name(), config.BlockSize/sector, lowWater)
	if err := p.control.load(p.name, sectors, "thin-pool", table); err != nil {
		return errdefs.FailedPrecondition.Errorf("making a thin pool (modprobe dm_thin_pool; CONFIG_DM_THIN_PROVISIONING): %w", err)
	}
	return nil
}

// openBlock opens a block device, or a file as one.
func openBlock(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		return attach(path)
	}
	if info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
		return nil, errdefs.InvalidArgument.Errorf("%s is neither a file nor a block device", path)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// Close lets go of the pool, which stays active.
func (p *Pool) Close() error { return unix.Close(p.control.fd) }

// Deactivate removes the pool's device with its last user. What is in the pool stays.
func (p *Pool) Deactivate() error { return p.control.remove(p.name) }

// Name is the name of the pool's device.
func (p *Pool) Name() string { return p.name }

// Create makes the empty device id. AlreadyExists says that the number is taken.
func (p *Pool) Create(id int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tell("create_thin %d", id)
}

// Snapshot makes the device id with what origin has now.
func (p *Pool) Snapshot(id, origin int) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := p.deviceName(origin)
	if _, live, err := p.control.find(name); err == nil && live {
		// thin-provisioning.txt: an active origin must be quiet meanwhile.
		if err := p.control.suspend(name); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.control.resume(name)) }()
	}
	return p.tell("create_snap %d %d", id, origin)
}

// Delete deletes the device id; a missing one is no error.
func (p *Pool) Delete(id int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.tell("delete %d", id)
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// tell sends the pool a message.
func (p *Pool) tell(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	err := p.control.message(p.name, text)
	switch {
	case errors.Is(err, unix.EEXIST):
		return errdefs.AlreadyExists.Errorf("pool %s: %s: %w", p.name, text, err)
	case err != nil:
		return fmt.Errorf("pool %s: %s: %w", p.name, text, err)
	}
	return nil
}

// Usage is how full a pool is, in bytes.
type Usage struct {
	Data, DataTotal         int64
	Metadata, MetadataTotal int64
	BlockSize               int64
	DataDevice, MetaDevice  string // MAJOR:MINOR
	Failed                  string // "" or why the kernel does not write to it any more
}

// Usage asks the kernel, whose text is in thin-provisioning.txt.
func (p *Pool) Usage() (Usage, error) {
	_, table, err := p.control.table(p.name, unix.DM_STATUS_TABLE_FLAG)
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	var sectors int64
	if _, err := fmt.Sscan(table, &u.MetaDevice, &u.DataDevice, &sectors); err != nil {
		return Usage{}, fmt.Errorf("pool %s: reading the table %q: %w", p.name, table, err)
	}
	u.BlockSize = sectors * sector
	_, status, err := p.control.table(p.name, 0)
	if err != nil {
		return Usage{}, err
	}
	var transaction int64
	if _, err := fmt.Sscanf(status, "%d %d/%d %d/%d", &transaction, &u.Metadata, &u.MetadataTotal, &u.Data, &u.DataTotal); err != nil {
		u.Failed = status // "Fail", "Error"
		return u, nil     //nolint:nilerr // a pool out of order has a usage too
	}
	const metadataBlock = 4096
	u.Metadata, u.MetadataTotal = u.Metadata*metadataBlock, u.MetadataTotal*metadataBlock
	u.Data, u.DataTotal = u.Data*u.BlockSize, u.DataTotal*u.BlockSize
	for _, word := range strings.Fields(status) {
		if word == "ro" || word == "out_of_data_space" || word == "needs_check" {
			u.Failed = word
		}
	}
	return u, nil
}
