// Package subvolume makes, copies, limits and deletes btrfs subvolumes with the
// kernel's own calls (linux/btrfs.h); no program of btrfs-progs is needed.
//
// A subvolume is named by its path; the last component is taken by name in its
// directory's descriptor and never followed. Delete takes nested subvolumes
// along: a container may have made some, and the kernel deletes only those
// without.
package subvolume
