package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	apicontainer "github.com/moby/moby/api/types/container"
	apimount "github.com/moby/moby/api/types/mount"

	"github.com/engined/engined/proto/errdefs"
)

// localDriver is the one driver of volumes: a directory of this engine's.
const localDriver = "local"

var validVolume = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// volume is a mount of a named volume, or of a new one without a name.
func (s *Service) volume(name, target string) Mount {
	m := Mount{Anonymous: name == ""}
	if name == "" {
		name = newID()
	}
	m.MountPoint = apicontainer.MountPoint{
		Type: apimount.TypeVolume, Name: name, Driver: localDriver, Destination: target, RW: true,
		Source: filepath.Join(s.Root, "volumes", name, "_data"),
	}
	return m
}

func (s *Service) parseVolume(asked apimount.Mount, target string, invalid func(string, ...any) error) (Mount, error) {
	if asked.BindOptions != nil || asked.TmpfsOptions != nil {
		return Mount{}, invalid("field BindOptions or TmpfsOptions must not be specified")
	}
	if asked.Source != "" && !validVolume.MatchString(asked.Source) {
		return Mount{}, invalid("%q is no name of a volume", asked.Source)
	}
	m := s.volume(asked.Source, target)
	if o := asked.VolumeOptions; o != nil {
		if o.Subpath != "" || len(o.Labels) > 0 || o.DriverConfig != nil && (len(o.DriverConfig.Options) > 0 || o.DriverConfig.Name != "" && o.DriverConfig.Name != localDriver) {
			return Mount{}, errdefs.NotImplemented.Errorf("HostConfig.Mounts.VolumeOptions: subpaths, labels and drivers of volumes are not implemented")
		}
		m.NoCopy = o.NoCopy
	}
	return m, nil
}

// makeVolumes makes the directories of the container's volumes.
func (s *Service) makeVolumes(r *Record) error {
	for _, m := range r.Mounts {
		if m.Type != apimount.TypeVolume {
			continue
		}
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return fmt.Errorf("making volume %s: %w", m.Name, err)
		}
	}
	return nil
}

// removeAnonymous removes the volumes that were made for this container and
// that no other has mounted by their name.
func (s *Service) removeAnonymous(r *Record) error {
	var failed []error
	for _, m := range r.Mounts {
		if m.Anonymous {
			failed = append(failed, s.removeVolume(m.Name, r.ID))
		}
	}
	return errors.Join(failed...)
}

// removeVolume renames before it deletes: a create that comes meanwhile with
// this name gets a new volume and does not wait.
func (s *Service) removeVolume(name, id string) error {
	dir := filepath.Join(s.Root, "volumes", name)
	doomed := filepath.Join(s.Root, "volumes", "."+name+".removed")
	if err := os.RemoveAll(doomed); err != nil { // of a removal that was cut off
		return fmt.Errorf("removing volume %s: %w", name, err)
	}
	err := s.unlessShared(name, id, func() error { return os.Rename(dir, doomed) })
	if err == nil {
		err = os.RemoveAll(doomed)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing volume %s: %w", name, err)
	}
	return nil
}
