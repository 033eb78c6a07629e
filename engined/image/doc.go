// Package image keeps images: their configurations, names, and who uses them.
// It knows nothing of containers but the owners that hold an image, and leaves
// files to package layer.
//
// An image's id is the sha256 of its configuration, byte for byte as it came.
// The configuration lies in the image's row, not in a file of its own: it
// appears and goes together with the names and the hold on the layers, in one
// transaction, and no crash separates them. It is verified whenever it is read
// from the database. What does not match its id, has lost its row or a layer, is
// in quarantine: listed as damaged, an error where it is needed, removable, and
// healed by the next pull or load; it never stops anything else. Check looks for
// more. The tables' versions are in schema_versions (package store).
//
//	images(id)                       config, when made, when tagged last
//	├── chain ──> layers             its uppermost layer, held for "image/<id>"
//	├── parent                       the image it was built on, here; may be gone
//	├── image_names(name)            docker.io/library/busybox:latest, ...@sha256:...
//	├── image_holds(owner, image)    "container/<id>"
//	└── image_manifests(image)       as they were pulled or pushed
//	layer_blobs(diff)                what registries call a layer, and where; a hint
//
//	<data root>/image/load-*/        a load's spooled archive; gone with the call
//
// The order of making: layers, each held for "work/<random>" as it appears and
// some unpacked side by side; then they are synced, all at once (layer.Sync); then
// one transaction for row, names and hold, which is synced, too; then the event;
// then the work's hold goes, and what was spooled. So a power cut leaves whole
// images, and all that were reported done.
//
// The order of removing: the row with all that hangs on it and the rows of the
// layers that nobody needs then, in one transaction; the event; the files.
//
// Archives come as `docker save` writes them (manifest.json) or as an OCI image
// layout; ones from before Docker 1.10 (repositories, <id>/VERSION) are refused.
//
// Registries are package registry's: Pull unpacks what it fetches, Push puts
// layers together again for it.
//
// Absent on purpose: building, and rules about containers: who runs is told by the
// caller of Remove.
//
// Start reading at store.go, then resolve.go; a file per verb.
package image
