// Package resctrl puts a container into a group of Intel's Resource Director
// Technology, as linux.intelRdt says: cache ways and memory bandwidth by
// schemata, a monitoring group beside them.
//
// A [Group] is where the container's processes write themselves to, and what
// is the container's own of it. Groups that have a name in the spec (closID)
// are shared and stay; one named after the container, and its monitoring
// group, go with it.
//
// Absent on purpose: mounting resctrl. The host's administrator chooses its
// mount options (cdp, mba_MBps), which decide what schemata mean.
package resctrl
