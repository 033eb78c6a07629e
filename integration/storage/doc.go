// Package storage runs a whole instance on each storage driver that works on
// this machine, on a file system of its own in a loop device where the driver
// wants one: pull, run, crash, go on, save and load, limits, remove.
//
// A driver that the kernel lacks is skipped with the engine's own reason. The
// drivers' finer points are tested beside their code, in engined/layer.
package storage
