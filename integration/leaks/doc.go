// Package leaks runs many containers on one stack and looks at what is left:
// on the machine (mounts, cgroups, links, processes) and in the daemons
// (goroutines, file descriptors).
package leaks
