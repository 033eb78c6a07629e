package libcontainer

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/plainjson"
	"github.com/engined/engined/proto/errdefs"
)

// readConfig reads the bundle's config.json.
func (l *launch) readConfig() (err error) {
	if l.bundle, err = filepath.Abs(l.opts.Bundle); err != nil {
		return err
	}
	path := filepath.Join(l.bundle, ConfigFile)
	l.config, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.NotFound.Coded(errdefs.BundleInvalid, l.bundle, "JSON specification file %s not found", path)
	}
	if err != nil {
		return errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, l.bundle, "%w", err)
	}
	return nil
}

// decode decodes and validates the config.
func (l *launch) decode() error {
	l.spec = new(specs.Spec)
	if err := plainjson.Unmarshal(l.config, l.spec); err != nil {
		return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, specField(err), "parsing %s: %w", filepath.Join(l.bundle, ConfigFile), err)
	}
	if err := validate(l.spec); err != nil {
		return err
	}
	if p := l.spec.Linux.RootfsPropagation; l.opts.NoPivot && (p == "private" || p == "rprivate") {
		return invalid("linux.rootfsPropagation", "rootfsPropagation of [r]private is not safe without pivot_root")
	}
	if err := cmp.Or(l.user.check(l.spec), checkMapped(l.spec, l.spec.Process)); err != nil {
		return err
	}
	return l.findRoot()
}

// specField names the field that a decoder's error is about.
func specField(err error) string {
	var wrong *plainjson.Error
	if errors.As(err, &wrong) {
		return wrong.Field
	}
	return ""
}

func (l *launch) findRoot() error {
	root := l.spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(l.bundle, root)
	}
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		return errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, l.bundle, "invalid rootfs: %w", err)
	}
	found, err := os.Stat(resolved)
	if err != nil || !found.IsDir() {
		return errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, l.bundle, "invalid rootfs: %s is not a directory", root)
	}
	if resolved == "/" {
		return invalid("root.path", "expected a directory below the host's root, got %q", root)
	}
	l.rootfs = resolved
	return nil
}
