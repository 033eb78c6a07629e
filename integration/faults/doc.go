// Package faults ends processes of a running stack the hard way and checks what
// has to hold afterwards: containers go on, terminals go on, no line of a log
// is lost or doubled, exits are known, and nothing stays behind.
package faults
