package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

// Below returns the cgroup that lies, per controller, at a path below c; the
// key "" is all controllers, the only one that v2 knows. No paths are c itself.
// The directories must be there already; joining them tells.
func (c *Cgroup) Below(paths map[string]string) (*Cgroup, error) {
	if len(paths) == 0 {
		return c, nil
	}
	below := Location{}
	used := map[string]bool{}
	for name, dir := range c.location.V1 {
		path := paths[""]
		for controller, given := range paths {
			if controller != "" && (controller == name || slices.Contains(strings.Split(name, ","), controller)) {
				path, used[controller] = given, true
			}
		}
		sub, err := subdirectory(dir, path)
		if err != nil {
			return nil, err
		}
		below.add(name, sub)
	}
	for controller := range paths {
		if controller != "" && !used[controller] {
			return nil, errdefs.InvalidArgument.Errorf("unknown controller %s in --cgroup", controller)
		}
	}
	return c.belowUnified(below, paths[""])
}

// belowUnified adds v2's directory. On a hybrid host nothing is limited there,
// so a path that only the v1 hierarchies have is no error.
func (c *Cgroup) belowUnified(below Location, path string) (*Cgroup, error) {
	if c.location.V2 == "" {
		return At(below), nil
	}
	dir, err := subdirectory(c.location.V2, path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err != nil {
		if c.unified() {
			return nil, errdefs.NotFound.Errorf("cgroup %s: %w", path, err)
		}
		dir = c.location.V2
	}
	below.V2 = dir
	return At(below), nil
}

// subdirectory joins a path that must not lead out.
func subdirectory(dir, path string) (string, error) {
	joined := filepath.Join(dir, path)
	if joined != dir && !strings.HasPrefix(joined, dir+"/") {
		return "", errdefs.InvalidArgument.Errorf("bad sub cgroup path: %s", path)
	}
	return joined, nil
}
