package layer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

// driver makes and joins file trees. Directories are absolute paths under the
// store's root, made and removed by the driver; lowers are the directories of
// the read-only layers below, top first. Calls for one directory never overlap.
type driver interface {
	name() string
	status(root string) [][2]string
	// probe says why this driver cannot work under root, or nil.
	probe(root string) error
	// stage makes dir with a diff directory to unpack a layer into.
	stage(ctx context.Context, dir string, lowers []string) error
	// whiteouts says how a deletion in a layer's tar is kept in its diff.
	whiteouts() whiteoutStyle
	// create makes dir for a container's writable layer.
	create(ctx context.Context, dir string, lowers []string) error
	// mount returns where the joined tree is seen; again if it is there already.
	mount(ctx context.Context, dir string, lowers []string) (string, error)
	// unmount undoes mount; nothing to do is no error.
	unmount(dir string) error
	// remove unmounts and deletes dir, of either sort; a missing one is no error.
	remove(dir string) error
	// size is what a writable layer takes by itself.
	size(ctx context.Context, dir string, lowers []string) (int64, error)
	// describe gives Docker's GraphDriver data.
	describe(dir string, lowers []string, writable bool) map[string]string
}

// whiteoutStyle is what unpacking makes of a deletion.
type whiteoutStyle int

const (
	whiteoutNodes   whiteoutStyle = iota // overlayfs: char 0:0 and trusted.overlay.opaque
	whiteoutDeletes                      // the tree below is a copy: delete there
)

// drivers in the order in which they are tried.
var drivers = []driver{overlay{}, vfs{}}

// choose returns the driver called want; with no wish the one that has data
// under root, else the first that works there.
func choose(root, want string) (driver, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("making the data root: %w", err)
	}
	if want != "" {
		return named(root, want)
	}
	for _, d := range drivers {
		if entries, _ := os.ReadDir(filepath.Join(root, d.name())); len(entries) > 0 {
			return named(root, d.name())
		}
	}
	var reasons []string
	for _, d := range drivers {
		err := d.probe(root)
		if err == nil {
			return d, nil
		}
		reasons = append(reasons, d.name()+": "+err.Error())
	}
	return nil, errdefs.FailedPrecondition.Errorf("no storage driver works under %s: %s", root, strings.Join(reasons, "; "))
}

func named(root, want string) (driver, error) {
	if want == "overlay2" { // Docker's name for the same thing
		want = "overlay"
	}
	for _, d := range drivers {
		if d.name() != want {
			continue
		}
		if err := d.probe(root); err != nil {
			return nil, errdefs.FailedPrecondition.Errorf("storage driver %s does not work under %s: %w", want, root, err)
		}
		return d, nil
	}
	return nil, errdefs.InvalidArgument.Errorf("unknown storage driver %q: this engine has overlay and vfs", want)
}
