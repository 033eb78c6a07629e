package shim

import (
	"slices"

	proto "github.com/engined/engined/proto/shim"
)

// listed is how many names one answer has: as many of the longest as fit, each with
// quotes and a comma, beside 64 bytes for the rest.
const listed = (proto.MaxBody - 64) / (maxName + 3)

// list returns the names that come after one.
func (s *Shim) list(after string) proto.ListReply {
	var names []string
	for name := range s.processes {
		if name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	fit := min(len(names), listed)
	return proto.ListReply{Processes: names[:fit], More: fit < len(names)}
}
