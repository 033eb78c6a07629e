package libcontainer

import (
	"errors"
	"fmt"
	"os"

	"github.com/engined/engined/proto/errdefs"
)

// List opens every container below root. Those that cannot be read are named
// in skipped; directories without a state, of containers that are being made
// or removed, are passed over.
func List(root string) (containers []*Container, skipped []error, err error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range entries {
		if !entry.IsDir() || entry.Name() == seccompCache {
			continue
		}
		c, err := Open(root, entry.Name())
		switch {
		case err == nil:
			containers = append(containers, c)
		case errdefs.CodeOf(err) == errdefs.NoSuchContainer:
		default:
			skipped = append(skipped, fmt.Errorf("load container %s: %w", entry.Name(), err))
		}
	}
	return containers, skipped, nil
}

// OwnerID returns the user that made the container.
func (c *Container) OwnerID() (uid uint32, err error) {
	info, err := os.Lstat(c.Dir())
	if errors.Is(err, os.ErrNotExist) {
		return 0, errdefs.NotFound.Coded(errdefs.NoSuchContainer, c.ID, "container does not exist")
	}
	if err != nil {
		return 0, err
	}
	return fileOwner(info), nil
}
