// Package spec makes the OCI runtime spec of a container out of what Docker's
// clients asked for. [Build] is pure: what must be looked up on the machine
// (users in the image, device numbers, other containers' namespaces, the
// cgroup layout) is looked up by its caller and handed in with [Input].
//
// The result is what dockerd would make of the same request, field for field:
// testdata holds golden files, and dockerd's own bundle is the one for the
// defaults.
//
// [ResolveUser] and [MakeWorkingDir] are the two look-ups inside a root
// filesystem. Both follow no link out of it, whatever the image contains
// (CVE-2024-21626, CVE-2025-31133 and their kin).
//
// Absent on purpose: defaults that a client can see with inspect (memory swap,
// cgroup namespace mode); they are filled in at create, by package container.
package spec
