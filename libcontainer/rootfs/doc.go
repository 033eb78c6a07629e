// Package rootfs compiles the root file system of a container, as the spec
// wants it, into operations for the stage: the root mount, mounts and their
// options, devices, links, masks, and the switch of roots.
//
// It is pure: facts about the host come in [Host], nothing is touched, and
// equal input gives equal operations (golden files in package libcontainer).
// No path inside the root is looked at here; the stage resolves each one when
// its operation comes, because the root's content is the container's.
//
// Two halves, because the parent runs hooks between them and the process part
// needs the finished /dev: [Build] before, [Finish] after.
//
// Start reading at Build in build.go, which gives a reason for each step.
package rootfs
