// Package failpoint names the moments between two steps at which a process may
// be killed and nothing may be lost or left behind.
//
// At(name) is an empty, inlined call, but in binaries built with the tag
// failpoints: there the process sends itself SIGKILL at the point that the
// variable ENGINED_FAILPOINT names ("layer-loaded"), at its n-th passage if
// that says so ("layer-loaded:3"); with ENGINED_FAILPOINT_STOPS it stops there
// (SIGSTOP), and another process may do something meanwhile. With
// ENGINED_FAILPOINT_TRACE=FILE each passage appends a line with the name to FILE, so
// that a test first runs the work whole, reads which points there are, and then kills
// at each of them: a point that somebody adds is tested from then on.
//
// Names say what has just been done ("spec-validated", "shim-started"); they
// are unique in the project and prefixed by the room where that is not obvious.
//
// It imports nothing but os and syscall, and those only with the tag: ocirun
// and the shim link it.
package failpoint
