// Package debian runs a whole distribution: a root file system that debootstrap
// made, imported as an image. It is kept below $XDG_CACHE_HOME/engined, because
// making it takes a minute; a machine that reaches no archive skips the test.
package debian
