// Package storage runs a whole instance on each storage driver that works on
// this machine, on a file system of its own in a loop device where the driver
// wants one: run, crash, go on, limits, remove, and all that the command line does
// with images, which has to be answered on all of them as dockerd does.
//
// A driver that the kernel lacks is skipped with the engine's own reason. The
// drivers' finer points are tested beside their code, in engined/layer.
package storage
