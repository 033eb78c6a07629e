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
// Who numbers the devices writes a number down before Create or Snapshot, and
// crosses it out after Delete: then none is ever forgotten in the pool.
//
// Absent on purpose: growing and repairing pools (dmsetup, thin_repair), LVM.
package thinpool
