package supervisor

import (
	"strconv"
	"strings"
)

// parseVersion takes major, minor and patch out of "v1.2.3-rest"; what is not
// there is 0.
func parseVersion(version string) (major, minor, patch uint32) {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "-")
	numbers := [3]uint32{}
	for i, part := range strings.SplitN(version, ".", len(numbers)) {
		number, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			break
		}
		numbers[i] = uint32(number)
	}
	return numbers[0], numbers[1], numbers[2]
}
