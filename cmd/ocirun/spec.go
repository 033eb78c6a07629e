package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

var specCommand = command{
	name: "spec", max: 0,
	usage: "create a new specification file",
	description: `The spec command creates the new specification file named "config.json" for
the bundle.

The spec generated is just a starter file. Editing of the spec is required to
achieve desired results. For example, the newly generated spec includes an args
parameter that is initially set to call the "sh" command when the container is
started.

When starting a container through ocirun, ocirun needs root privilege. With
--rootless the file has a user namespace in which the caller is root.`,
	bind: func(f *flags) action {
		bundle := f.text("bundle", "b", "", "path to the root of the bundle directory")
		rootless := f.flag("rootless", "", "generate a configuration for a rootless container")
		return func(*call) error {
			layout, err := cgroup.Detect()
			spec := libcontainer.Example(err == nil && layout.Mode == cgroup.V2)
			if *rootless {
				libcontainer.ToRootless(spec, os.Geteuid(), os.Getegid())
			}
			return writeSpec(filepath.Join(*bundle, libcontainer.ConfigFile), spec)
		}
	},
}

// writeSpec writes a file that must not be there yet.
func writeSpec(path string, spec *specs.Spec) error {
	encoded, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if errors.Is(err, os.ErrExist) {
		return errdefs.AlreadyExists.Errorf("File %s exists. Remove it first", libcontainer.ConfigFile)
	}
	if err != nil {
		return err
	}
	_, err = file.Write(encoded)
	return errors.Join(err, file.Close())
}
