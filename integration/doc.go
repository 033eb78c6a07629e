// Package integration holds the black box tests: real binaries, a real kernel,
// stock clients. They need root; `make integration` runs them.
//
//	layout_test.go   who may import whom, what a binary may link (no root)
//	harness/         private instances of the stack, and of Debian's dockerd
//	leftovers/       what a container or an instance leaves behind
//	bundle/ rootfs/  OCI bundles and the busybox root file system
//	api/             the Engine API through its Go client and by hand: good and bad requests
//	cli/             stock docker clients, compared with dockerd
//	oci/             bundles under ocirun, runc and crun, compared
//	faults/          kill -9 of each process, then nothing lost
//	leaks/           many containers, then nothing left
//	debian/          a Debian root file system made by debootstrap
//	perf/            measurements, for `make bench`
//	cmd/             programs the Makefile runs
//
// They import nothing of the project but proto: what is tested is what a user
// has.
package integration
