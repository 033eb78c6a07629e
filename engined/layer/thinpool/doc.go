// Package thinpool speaks to the kernel's device mapper: a pool of blocks, and
// thin devices in it that share what they have in common. It uses the calls of
// /dev/mapper/control itself (linux/dm-ioctl.h); no program and no library of
// LVM is needed, and no udev.
//
//	data file ──loop──┐
//	                  ├── pool, a device "<name>" with the target thin-pool
//	metadata ──loop───┘     └── thin device id 7, active as "<name>-7"
//
// A device is active only while somebody uses it: Close asks the kernel to
// remove it with its last user (deferred removal, Linux 3.13), so that neither
// a mount that outlives its maker nor a crash leaves anything to clean up. The
// pool stays active when its process ends; the next one finds it by its name.
//
// Who numbers the devices writes a number down as tried before Create or Snapshot,
// as made after it, and crosses it out after Delete: then none that is known to be
// made is forgotten in the pool. One that was only tried may be another program's,
// where a pool has several users, and is left alone.
//
// Absent on purpose: growing and repairing pools (dmsetup, thin_repair), LVM.
package thinpool
