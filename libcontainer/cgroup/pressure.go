package cgroup

import (
	"strconv"
	"strings"
)

// Pressure is the kernel's pressure stall information for one resource, kernel
// doc accounting/psi.rst.
type Pressure struct {
	Some Stall `json:"some"` // at least one process waited
	Full Stall `json:"full"` // all waited at once
}

// Stall says how long was waited: percent of the last 10, 60 and 300 seconds, and
// microseconds in all.
type Stall struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// parsePressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and a line
// "full ..." like it, which older kernels do not have for the processor. It is nil
// if there is neither, as where the kernel does not count.
func parsePressure(text string) *Pressure {
	pressure, found := &Pressure{}, false
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case "some":
			pressure.Some, found = parseStall(rest), true
		case "full":
			pressure.Full, found = parseStall(rest), true
		}
	}
	if !found {
		return nil
	}
	return pressure
}

func parseStall(text string) (stall Stall) {
	for field := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(field, "=")
		switch percent, err := strconv.ParseFloat(value, 64); {
		case err != nil:
		case name == "avg10":
			stall.Avg10 = percent
		case name == "avg60":
			stall.Avg60 = percent
		case name == "avg300":
			stall.Avg300 = percent
		case name == "total":
			stall.Total, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return stall
}
