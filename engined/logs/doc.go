// Package logs serves `docker logs` from the files that the shim writes, which
// package proto/logfile reads. A follower ends when the container has stopped
// and all it wrote is read.
//
// Absent on purpose: writing (that is the shim's), and drivers that ship logs
// elsewhere.
package logs
