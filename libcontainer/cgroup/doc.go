// Package cgroup makes, fills, reads and removes a container's cgroups on v1,
// hybrid and v2 hosts. It is a leaf: the runtime uses it to start containers,
// the supervisor to read statistics, freeze, and hear of the OOM killer.
package cgroup
