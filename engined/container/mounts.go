package container

import (
	"maps"
	"path"
	"slices"
	"sort"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	apimount "github.com/moby/moby/api/types/mount"

	"github.com/engined/engined/proto/errdefs"
)

// parseMounts lists the container's mounts, in Docker's order of precedence:
// Mounts and Binds, which must not collide, then the image's volumes where
// neither has one.
func (s *Service) parseMounts(r *Record) ([]Mount, error) {
	var list []Mount
	for _, bind := range r.HostConfig.Binds {
		m, err := s.parseBind(bind)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	for _, asked := range r.HostConfig.Mounts {
		m, err := s.parseMount(asked)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	for at, options := range r.HostConfig.Tmpfs {
		list = append(list, tmpfsMount(at, options))
	}
	taken := make(map[string]bool)
	for _, m := range list {
		if taken[m.Destination] {
			return nil, errdefs.InvalidArgument.Errorf("Duplicate mount point: %s", m.Destination)
		}
		taken[m.Destination] = true
	}
	for _, at := range slices.Sorted(maps.Keys(r.Config.Volumes)) {
		at = path.Clean(at)
		if err := checkTarget(at); err != nil {
			return nil, err
		}
		if !taken[at] {
			taken[at] = true
			list = append(list, s.volume("", at))
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Destination < list[j].Destination })
	return list, nil
}

func checkTarget(at string) error {
	if !path.IsAbs(at) {
		return errdefs.InvalidArgument.Errorf("invalid mount path: '%s' mount path must be absolute", at)
	}
	if at == "/" {
		return errdefs.InvalidArgument.Errorf("invalid specification: destination can't be '/'")
	}
	return nil
}

// parseBind reads SOURCE:TARGET[:MODE], or TARGET alone for a volume without a
// name. A source that is not a path names a volume.
func (s *Service) parseBind(text string) (Mount, error) {
	source, rest, has := strings.Cut(text, ":")
	if !has {
		source, rest = "", text
	}
	target, mode, _ := strings.Cut(rest, ":")
	if strings.ContainsRune(text, 0) || has && (source == "" || target == "") || strings.Contains(mode, ":") {
		return Mount{}, errdefs.InvalidArgument.Errorf("invalid volume specification: '%s'", text)
	}
	target = path.Clean(target)
	if err := checkTarget(target); err != nil {
		return Mount{}, errdefs.InvalidArgument.Errorf("invalid volume specification: '%s': %w", text, err)
	}
	var m Mount
	switch {
	case path.IsAbs(source):
		m = bindMount(path.Clean(source), target)
		m.CreateSource = true
	case source != "" && !validVolume.MatchString(source):
		return Mount{}, errdefs.InvalidArgument.Errorf("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", source)
	default:
		m = s.volume(source, target)
	}
	m.Mode = mode
	if err := m.setMode(mode); err != nil {
		return Mount{}, errdefs.InvalidArgument.Errorf("invalid volume specification: '%s': %w", text, err)
	}
	return m, nil
}

func bindMount(source, target string) Mount {
	return Mount{MountPoint: apicontainer.MountPoint{
		Type: apimount.TypeBind, Source: source, Destination: target, RW: true, Propagation: apimount.PropagationRPrivate,
	}}
}

func tmpfsMount(target, options string) Mount {
	return Mount{
		MountPoint: apicontainer.MountPoint{Type: apimount.TypeTmpfs, Destination: path.Clean(target), RW: true},
		Options:    options,
	}
}

// setMode reads the comma separated options of a -v.
func (m *Mount) setMode(mode string) error {
	if mode == "" {
		return nil
	}
	for option := range strings.SplitSeq(mode, ",") {
		bind := m.Type == apimount.TypeBind
		switch {
		case option == "ro":
			m.RW = false
		case option == "rw":
		case option == "z", option == "Z": // SELinux labels, which this engine never sets
		case option == "nocopy" && !bind:
			m.NoCopy = true
		case slices.Contains(apimount.Propagations, apimount.Propagation(option)) && bind:
			m.Propagation = apimount.Propagation(option)
		case option == "consistent", option == "cached", option == "delegated", option == "default":
		default:
			return errdefs.InvalidArgument.Errorf("invalid mode: %s", mode)
		}
	}
	return nil
}

// parseMount reads one of HostConfig.Mounts.
func (s *Service) parseMount(asked apimount.Mount) (Mount, error) {
	invalid := func(format string, args ...any) error {
		return errdefs.InvalidArgument.Errorf("invalid mount config for type %q: "+format, append([]any{asked.Type}, args...)...)
	}
	if asked.Target == "" {
		return Mount{}, invalid("field Target must not be empty")
	}
	target := path.Clean(asked.Target)
	if err := checkTarget(target); err != nil {
		return Mount{}, invalid("%w", err)
	}
	var m Mount
	var err error
	switch asked.Type {
	case apimount.TypeBind:
		m, err = parseBindMount(asked, target, invalid)
	case apimount.TypeTmpfs:
		m, err = parseTmpfs(asked, target, invalid)
	case apimount.TypeVolume:
		m, err = s.parseVolume(asked, target, invalid)
	case apimount.TypeImage, apimount.TypeCluster, apimount.TypeNamedPipe:
		return Mount{}, errdefs.NotImplemented.Errorf("HostConfig.Mounts: mounts of type %s are not implemented", asked.Type)
	default:
		return Mount{}, errdefs.InvalidArgument.Errorf("mount type unknown: %q", asked.Type)
	}
	m.RW = !asked.ReadOnly
	return m, err
}

func parseBindMount(asked apimount.Mount, target string, invalid func(string, ...any) error) (Mount, error) {
	if asked.Source == "" {
		return Mount{}, invalid("field Source must not be empty")
	}
	if !path.IsAbs(asked.Source) {
		return Mount{}, invalid("invalid mount path: '%s' mount path must be absolute", asked.Source)
	}
	if asked.VolumeOptions != nil {
		return Mount{}, invalid("field VolumeOptions must not be specified")
	}
	m := bindMount(path.Clean(asked.Source), target)
	options := asked.BindOptions
	if options == nil {
		options = &apimount.BindOptions{}
	}
	if options.Propagation != "" {
		if !slices.Contains(apimount.Propagations, options.Propagation) {
			return Mount{}, invalid("invalid propagation mode: %s", options.Propagation)
		}
		m.Propagation = options.Propagation
	}
	m.NonRecursive, m.CreateSource, m.Recursive = options.NonRecursive, options.CreateMountpoint, options.ReadOnlyForceRecursive
	if !m.CreateSource {
		if err := sourceExists(m.Source); err != nil {
			return Mount{}, invalid("%w", err)
		}
	}
	return m, nil
}
