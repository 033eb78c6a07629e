package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
)

// Remove stops the unit, if there is one, and removes the directories, children first. It is done when they are
// gone, whoever removed them. Processes that have just been killed may hold a
// cgroup for a moment.
func (c *Cgroup) Remove(ctx context.Context) error {
	var failed []error
	if c.location.Unit != "" {
		failed = append(failed, c.stopUnit(ctx))
	}
	for _, dir := range c.dirs() {
		if err := removeDir(ctx, dir); err != nil {
			failed = append(failed, err)
		}
		failpoint.At("cgroup-directory-removed")
	}
	return errors.Join(failed...)
}

// removePatience bounds the waiting for a cgroup to empty when ctx does not.
const removePatience = 5 * time.Second

// removeDir removes dir and the cgroups below it. An exiting process leaves its
// cgroup a moment after it is reaped, and v1 has nothing to wait on: the
// waiting is a short sleep that doubles. On v2 too: cgroup.events tells when the
// last process left, but not when its last reference did.
func removeDir(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := removeTree(dir)
		if err == nil || !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// removeTree tries once. Most cgroups have no children: rmdir first.
func removeTree(dir string) error {
	err := rmdir(dir)
	if err == nil || !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	children, readErr := subdirs(dir)
	if readErr != nil {
		return readErr
	}
	for _, child := range children {
		if err := removeTree(child); err != nil {
			return err
		}
	}
	return rmdir(dir)
}

// rmdir removes one directory; it may be gone already.
func rmdir(dir string) error {
	for {
		err := unix.Rmdir(dir)
		switch err {
		case unix.EINTR:
			continue
		case nil, unix.ENOENT:
			return nil
		}
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
}

// subdirs lists the child cgroups of dir, none if it is gone.
func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing cgroup: %w", err)
	}
	var children []string
	for _, entry := range entries {
		if entry.IsDir() {
			children = append(children, filepath.Join(dir, entry.Name()))
		}
	}
	return children, nil
}
