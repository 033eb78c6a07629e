// Package cgroup makes, fills, reads and removes a container's cgroups on v1,
// hybrid and v2 hosts. It is a leaf: the runtime uses it to start containers,
// the supervisor to read statistics, freeze, and hear of the OOM killer.
//
// # Invariants
//
//   - A Cgroup is a Location and nothing else: all state is the kernel's, so
//     every caller that knows the Location (it is JSON in a state file) can act.
//   - Location only gains fields.
//   - SetButCPU and SetCPU write what the spec sets: one open, the writes, one close
//     per file. They read nothing but what a v1 cpuset takes from its parent. Zero means
//     unset, as in runc.
//   - A container's device rules start from "nothing is allowed", followed by
//     the spec's rules and the devices that every container has.
//   - Remove, Kill and Thaw of what is not there succeed.
//   - No call waits for RCU unless it must: Add, which writes cgroup.procs, is
//     the one that does (9-25 ms after idleness). A start uses JoinFiles (a
//     single-threaded child writes itself to v1's tasks) and Dir
//     (CLONE_INTO_CGROUP) instead.
//
// # Hybrid
//
// v1 hierarchies hold the controllers, the v2 one beside them holds none but is
// joined too, as runc does: Location.V2 is its directory. On a pure v2 host
// Location.V1 is empty.
//
// # systemd
//
// With --systemd-cgroup systemd makes the directories, of a unit that is born
// with the container's process in it (systemd.go), and is told the limits as
// properties (systemd_properties.go). The same limits are written to the files
// too, since systemd does not know all of them. From then on the cgroup is used
// as any other; Location.Unit makes Update tell systemd and Remove stop the unit.
//
// # Absent on purpose
//
// cilium/ebpf (the device filter is twenty lines of instructions and two
// bpf(2) calls), threaded v2 cgroups, kernel memory limits (the kernel dropped
// them).
//
// # Start reading
//
// layout.go (what the host has), make.go (where a container's cgroup is),
// set_v1.go and set_v2.go (what is written there), devices.go.
package cgroup
