// Package leftovers finds what containers, tests and instances of engined
// leave on a machine: processes, mounts, cgroups, network namespaces, links,
// nftables tables and directories.
//
// [Look] reads /proc, /sys and the file system and returns everything that
// looks like ours by name. Who asks decides what of it may be there: a test
// compares with what there was before and waits until its own is gone
// ([Await]); `make leakcheck` allows what belongs to instances that run.
//
// How things are recognised:
//
//	process    its executable lies beside ocirun or in one of our directories, or it works there, or its mounts show one
//	mount      mount point, source or options lie in one of our directories
//	cgroup     a directory named by a container's id (64 hex digits) or one of our prefixes
//	netns      a name in /run/netns with one of our prefixes (an instance's own are mounts)
//	link       veth + 8 hex digits, or one of our prefixes
//	nftables   tables whose name begins with engined
//	directory  below /tmp, /run and /var/tmp with one of our prefixes
//
// Absent on purpose: removing anything. A leak is to be seen, not swept away.
package leftovers
