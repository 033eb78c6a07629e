package thinpool

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Device is an active thin device.
type Device struct {
	pool *Pool
	name string
	Path string // of its node
	size int64
}

func (p *Pool) deviceName(id int) string { return fmt.Sprintf("%s-%d", p.name, id) }

// Activate makes the block device of id, size bytes large, or finds it. It
// stays until Close, and then until its last user ends.
func (p *Pool) Activate(id int, size int64) (*Device, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := p.deviceName(id)
	number, err := p.hold(name)
	if err != nil {
		return nil, err
	}
	d := &Device{pool: p, name: name, Path: fmt.Sprintf("/dev/dm-%d", unix.Minor(number)), size: size}
	table := fmt.Sprintf("%d:%d %d", unix.Major(p.number), unix.Minor(p.number), id)
	if _, live, err := p.control.find(name); err != nil || !live {
		if err := p.control.load(name, uint64(size/sector), "thin", table); err != nil {
			return nil, errors.Join(err, p.control.remove(name))
		}
	}
	node, err := openNode(d.Path, number)
	if err != nil {
		return nil, errors.Join(err, p.control.remove(name))
	}
	return d, node.Close()
}

// hold makes the device's entry, or takes back the wish that it may go. Between
// the two it may go: then it is made.
func (p *Pool) hold(name string) (number uint64, err error) {
	for range 100 {
		number, err = p.control.create(name)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		err = p.control.message(name, "@cancel_deferred_remove")
		if err == nil {
			number, _, err = p.control.find(name)
		}
		if err == nil {
			return number, nil
		}
	}
	if err != nil {
		return 0, fmt.Errorf("activating %s: %w", name, err)
	}
	return number, nil
}

// Discard gives all blocks of the device back to the pool, and the pool's to
// what it lies on.
func (d *Device) Discard() error {
	node, err := openNode(d.Path, 0)
	if err != nil {
		return err
	}
	defer node.Close()
	const blkDiscard = 0x1277 // BLKDISCARD
	span := [2]uint64{0, uint64(d.size)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, node.Fd(), blkDiscard, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return fmt.Errorf("discarding %s: %w", d.name, errno)
	}
	return nil
}

// Close lets the device go with its last user.
func (d *Device) Close() error {
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	return d.pool.control.remove(d.name)
}
