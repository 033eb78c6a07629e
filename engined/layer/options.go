package layer

import (
	"strconv"

	units "github.com/docker/go-units"

	"github.com/engined/engined/proto/errdefs"
)

// sizeOf reads HostConfig.StorageOpt of a container: 0 is no wish.
func sizeOf(driver string, options map[string]string) (size int64, err error) {
	for name, text := range options {
		if name != "size" {
			return 0, errdefs.InvalidArgument.Errorf("storage-opt: unknown option %s for %s: expected size", name, driver)
		}
		if size, err = parseSize(name, text); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// parseSize reads a size in --storage-opt.
func parseSize(name, text string) (int64, error) {
	size, err := units.RAMInBytes(text)
	if err != nil || size <= 0 {
		return 0, errdefs.InvalidArgument.Errorf("storage-opt %s: expected a size as 10G, got %q", name, text)
	}
	return size, nil
}

// parseTruth reads a storage option that is on or off.
func parseTruth(name, text string) (bool, error) {
	truth, err := strconv.ParseBool(text)
	if err != nil {
		return false, errdefs.InvalidArgument.Errorf("storage-opt %s: expected true or false, got %q", name, text)
	}
	return truth, nil
}

// errNoLimit says where sizes work, in dockerd's words, and why not here.
func errNoLimit(where string, reason error) error {
	return errdefs.InvalidArgument.Errorf("--storage-opt is supported only for %s: %w", where, reason)
}
