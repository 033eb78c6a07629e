package main

import (
	"math"
	"strconv"
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

// parseBytes reads a size as 1024, 512m, 1.5 GiB: units are powers of 1024 in
// any case, as in runc (docker/go-units' RAMInBytes).
func parseBytes(text string) (int64, error) {
	invalid := errdefs.InvalidArgument.Errorf("invalid size: '%s'", text)
	lower := strings.ToLower(text)
	number := strings.TrimRight(lower, "bikmgtp ")
	unit := strings.TrimPrefix(lower[len(number):], " ")
	if len(unit) > 1 && unit[0] != 'b' {
		unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	}
	power := strings.Index("bkmgtp", unit) // "" is at 0
	if len(unit) > 1 || power < 0 {
		return 0, invalid
	}
	n, err := strconv.ParseFloat(number, 64)
	size := n * math.Pow(1024, float64(power))
	if err != nil || !(size >= 0 && size < math.MaxInt64) {
		return 0, invalid
	}
	return int64(size), nil
}
