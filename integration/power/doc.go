// Package power cuts the power: a virtual machine in which engined pulls images
// is killed at a random moment, its disk as it is then is booted again, and every
// image that was reported done has to be whole. What the kill takes is the guest's
// page cache, up to half a minute of writing.
//
//	make power                     30 rounds, a quarter of an hour where there is no KVM
//
// ENGINED_POWER is the number of rounds, ENGINED_VM_RUN a program that runs
//
//	PROGRAM [--mem SIZE] [--timeout SECONDS] [--rw DIR] [--env K=V] -- COMMAND
//
// in a machine with this one's files, DIR shared; without either the test is
// skipped. disk.img in the shared directory is the disk, an ext4 mounted by loop;
// log.txt tells what was done, written through to the host.
package power
