package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	apimount "github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/engined/spec"
	"github.com/engined/engined/proto/errdefs"
)

// specInput looks up what the spec is made of.
func (s *Service) specInput(r *Record, run *Run) (in spec.Input, err error) {
	in = spec.Input{
		ID:          r.ID,
		Config:      r.Config,
		HostConfig:  r.HostConfig,
		Args:        slices.Concat([]string{r.Path}, r.Args),
		Rootfs:      run.Rootfs,
		HostNetwork: run.Host,
		NetworkPath: run.Sandbox,
		AppArmor:    s.AppArmor,
	}
	if in.User, err = spec.ResolveUser(run.Rootfs, r.Config.User, r.HostConfig.GroupAdd); err != nil {
		return in, err
	}
	if in.Mounts, err = s.specMounts(r); err != nil {
		return in, err
	}
	if in.Devices, in.DeviceRules, err = findDevices(r.HostConfig); err != nil {
		return in, err
	}
	if in.BlockIO, err = findBlockIO(r.HostConfig); err != nil {
		return in, err
	}
	if r.HostConfig.PidMode.IsContainer() {
		in.PidPath, err = s.pidNamespace(r.HostConfig.PidMode.Container())
	}
	return in, err
}

// etcFiles are bind-mounted from the run's directory.
var etcFiles = []string{"resolv.conf", "hostname", "hosts"}

func (s *Service) specMounts(r *Record) (list []specs.Mount, err error) {
	own := make(map[string]bool)
	for _, m := range r.Mounts {
		made, err := specMount(m)
		if err != nil {
			return nil, err
		}
		own[m.Destination] = true
		list = append(list, made)
	}
	for _, name := range etcFiles {
		if own["/etc/"+name] {
			continue
		}
		list = append(list, specs.Mount{
			Destination: "/etc/" + name, Type: "bind", Source: filepath.Join(s.runDir(r.ID), name),
			Options: []string{"rbind", "rprivate"},
		})
	}
	return list, nil
}

func specMount(m Mount) (specs.Mount, error) {
	made := specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source}
	switch m.Type {
	case apimount.TypeTmpfs:
		options, err := tmpfsOptions(m.Options)
		if err != nil {
			return made, err
		}
		made.Type, made.Source, made.Options = "tmpfs", "tmpfs", options
		return made, nil
	case apimount.TypeBind:
		if err := ensureSource(m); err != nil {
			return made, err
		}
	case apimount.TypeVolume:
		if err := os.MkdirAll(m.Source, 0o755); err != nil { // someone may have removed it
			return made, err
		}
	case apimount.TypeNamedPipe, apimount.TypeCluster, apimount.TypeImage: // refused at create
	}
	made.Options = []string{"rbind"}
	if m.NonRecursive {
		made.Options = []string{"bind"}
	}
	switch {
	case !m.RW && m.Recursive:
		made.Options = append(made.Options, "rro")
	case !m.RW:
		made.Options = append(made.Options, "ro")
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = apimount.PropagationRPrivate
	}
	made.Options = append(made.Options, string(propagation))
	return made, nil
}

// ensureSource makes the source directory of a -v that is not there, as Docker
// does.
func ensureSource(m Mount) error {
	if !m.CreateSource {
		return sourceExists(m.Source)
	}
	if _, err := os.Lstat(m.Source); err == nil {
		return nil
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
	}
	return nil
}

// joined returns the container whose network this one shares, or nil.
func (s *Service) joined(r *Record) (*container, error) {
	mode := r.HostConfig.NetworkMode
	if !mode.IsContainer() {
		return nil, nil //nolint:nilnil // it has its own
	}
	other, err := s.index.find(mode.ConnectedContainer())
	if err != nil {
		return nil, err
	}
	if other.id == r.ID {
		return nil, errdefs.InvalidArgument.Errorf("cannot join own network namespace")
	}
	return other, nil
}

// share puts the container into another one's network, with its files.
func (s *Service) share(r *Record, run *Run, other *container) error {
	theirs := other.record.Load()
	if !theirs.up() {
		return errdefs.Conflict.Coded(errdefs.NotRunning, theirs.ID, "cannot join network of a non running container: %s", theirs.ID)
	}
	run.Host, run.Sandbox = theirs.Run.Host, ""
	if !run.Host {
		run.Sandbox = namespaceOf(theirs, "net")
	}
	files := make(map[string][]byte)
	for _, name := range etcFiles {
		content, err := os.ReadFile(filepath.Join(s.runDir(theirs.ID), name))
		if err != nil {
			return fmt.Errorf("sharing the network of %s: %w", theirs.ID, err)
		}
		files[name] = content
	}
	return s.writeFiles(r.ID, files)
}

func (s *Service) pidNamespace(ref string) (string, error) {
	other, err := s.index.find(ref)
	if err != nil {
		return "", err
	}
	theirs := other.record.Load()
	if !theirs.up() {
		return "", errdefs.Conflict.Coded(errdefs.NotRunning, theirs.ID, "cannot join PID namespace of a non running container: %s", theirs.ID)
	}
	return namespaceOf(theirs, "pid"), nil
}

func namespaceOf(r *Record, kind string) string {
	return fmt.Sprintf("/proc/%d/ns/%s", r.Run.Pid, kind)
}
