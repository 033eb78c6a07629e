// Package quota limits what a directory tree may take on its file system, with
// project quotas: every file below a directory carries the directory's project
// id, and the file system counts blocks per project. ext4 and xfs have them.
//
// ext4 lets processes with the capability SYS_RESOURCE pass the limit, xfs does
// not. Containers do not have it unless they are given it.
//
// The project of a tree is written where the kernel keeps it, in the attributes
// of the tree's own directory, and nowhere else. A fresh id is the directory's
// inode number, because no other directory of the file system has it at that
// time; one that already counts something is passed over.
//
// A project's limit outlives its files, so Clear is called before a tree is
// removed: afterwards nobody would know the project. What a tree inherits from
// the directory above is not its own, and no limit of that is touched.
package quota
