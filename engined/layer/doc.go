// Package layer keeps file trees: the read-only layers that images are made
// of, and the writable layer of each container. It knows tars, digests and
// storage drivers; it knows nothing of image names or configurations.
//
// A read-only layer is named by its chain id: the digest over its own content
// (diff id) and everything below it. It exists when its row does; the row is
// written last, after the unpacked directory has its final name. Whatever lies
// in the driver's directory without a row is rubbish of an interrupted call,
// and Open removes it, unless a mount has it below: then it is a damaged layer
// that was replaced while containers ran on it. A row whose directory is gone is marked damaged, stays
// visible, and is repaired by registering the same layer again; so is a row that
// does not fit together, and one whose files Check finds changed.
//
//	<data root>/<driver>/          0700; driver is overlay2, btrfs, vfs or devicemapper
//	├── engined-layers             marks the directory as ours, see claim
//	├── tmp-<16 hex>/              being unpacked; no row yet
//	├── <16 hex>/                  a read-only layer
//	│   ├── diff/                  its files (overlay: whiteouts as char 0:0,
//	│   │                          opaque directories by trusted.overlay.opaque;
//	│   │                          the others: the whole tree, parents included;
//	│   │                          btrfs: a subvolume)
//	│   └── tar-split.json.gz      headers and padding of the tar it came from
//	└── <container id>/            a writable layer
//	    ├── diff/                  what the container changed
//	    ├── work/                  overlayfs's own
//	    └── merged/                its mount point
//
//	layers(driver, chain)          one row per whole or damaged layer
//	├── parent ──> layers          the layer below
//	├── layer_holds(owner, chain)  who needs it: "image/<id>", "work/<random>"
//	└── writable_layers(id) ─parent─> layers
//
// Sync brings everything to disk. It is called once for an image, before the row
// of the image: layers that only a call in progress holds do not outlive a power
// cut, so they need not be on disk. Files of a removed layer go after the removal
// of its row was synced.
//
// A layer without hold, child and writable layer on it is removed by Collect.
// Holds of owners named "work/..." cover calls in progress and end with the
// process: Open drops them.
//
// Unpacking (unpack.go) resolves every path that comes out of a tar under the
// layer's own directory descriptor with openat2(RESOLVE_IN_ROOT), and makes
// every object by name in a parent descriptor without following links. It runs
// on a thread that Landlock confines to that directory and that has few
// capabilities (confine.go): what the first rule lets slip, the kernel refuses.
// Decided 2026-11-21 against a child process in a chroot: no second process to
// feed the stream through, and the archive is parsed once for files, digest and
// tar-split metadata together. What that would add is memory of its own, which
// matters for decoders in C; the only one, xz, is a process anyway.
//
// Absent on purpose: compression on the way out, registries, image configs.
//
// Start reading at store.go, then register.go and writable.go.
package layer
