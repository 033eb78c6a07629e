package registry

import (
	"context"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

// Media types of Docker's registry format.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Bounds of a manifest's lists.
const (
	maxIndexDepth = 4 // indexes in one another; two are in use
	maxEntries    = 4096
	maxLayers     = 1024 // the storage drivers' own bounds are lower
)

// Resolved is an image for one platform as a registry has it.
type Resolved struct {
	Top      Manifest // what the reference means: an index, or Manifest again
	Manifest Manifest // the image's own
	Config   ocispec.Descriptor
	Layers   []ocispec.Descriptor // bottom first
}

// Resolve finds the image that a tag or digest means for a platform; nil is
// this machine's.
func (r *Repository) Resolve(ctx context.Context, at string, platform *ocispec.Platform) (Resolved, error) {
	top, err := r.Manifest(ctx, at)
	if err != nil {
		return Resolved{}, err
	}
	found := Resolved{Top: top, Manifest: top}
	for depth := 0; isIndex(found.Manifest.Descriptor.MediaType); depth++ {
		if depth >= maxIndexDepth {
			return found, errdefs.InvalidArgument.Errorf("more than %d indexes in one another", maxIndexDepth)
		}
		chosen, err := chooseFrom(found.Manifest, platform)
		if err != nil {
			return found, err
		}
		if found.Manifest, err = r.Manifest(ctx, chosen.Digest.String()); err != nil {
			return found, err
		}
	}
	return found, found.parse()
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerManifestList
}

// parse reads the image's manifest and checks it.
func (found *Resolved) parse() error {
	switch found.Manifest.Descriptor.MediaType {
	case DockerManifest, ocispec.MediaTypeImageManifest:
	default:
		return notSupported("manifest", found.Manifest.Descriptor.MediaType)
	}
	var manifest ocispec.Manifest
	if err := decode("manifest", found.Manifest.Raw, &manifest); err != nil {
		return err
	}
	if manifest.SchemaVersion != 2 {
		return errdefs.NotImplemented.Errorf("manifest: schema version %d is not supported", manifest.SchemaVersion)
	}
	switch manifest.Config.MediaType {
	case DockerConfig, ocispec.MediaTypeImageConfig:
	default:
		return notSupported("config (is this an image?)", manifest.Config.MediaType)
	}
	if err := checkDescriptor("config", manifest.Config); err != nil {
		return err
	}
	if len(manifest.Layers) > maxLayers {
		return errdefs.InvalidArgument.Errorf("manifest: %d layers; at most %d are allowed", len(manifest.Layers), maxLayers)
	}
	for i, l := range manifest.Layers {
		what := "layers[" + strconv.Itoa(i) + "]"
		if !isLayer(l.MediaType) {
			return notSupported(what, l.MediaType)
		}
		if err := checkDescriptor(what, l); err != nil {
			return err
		}
	}
	found.Config, found.Layers = manifest.Config, manifest.Layers
	return nil
}

// isLayer leaves out foreign layers (their content is elsewhere) and whatever
// is not a file tree.
func isLayer(mediaType string) bool {
	switch mediaType {
	case DockerLayer, DockerLayerGzip, ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		"application/vnd.docker.image.rootfs.diff.tar.zstd":
		return true
	}
	return false
}

// checkDescriptor makes sure that a digest can name a file, and a size bound.
func checkDescriptor(what string, of ocispec.Descriptor) error {
	if err := of.Digest.Validate(); err != nil {
		return errdefs.InvalidArgument.Errorf("manifest: %s.digest %q: %w", what, of.Digest, err)
	}
	if of.Digest.Algorithm() != digest.SHA256 && of.Digest.Algorithm() != digest.SHA512 {
		return errdefs.InvalidArgument.Errorf("manifest: %s.digest %q: expected sha256 or sha512", what, of.Digest)
	}
	if of.Size < 0 {
		return errdefs.InvalidArgument.Errorf("manifest: %s.size is %d", what, of.Size)
	}
	return nil
}

// chooseFrom returns an index' entry for the platform.
func chooseFrom(index Manifest, platform *ocispec.Platform) (ocispec.Descriptor, error) {
	var list ocispec.Index
	if err := decode("index", index.Raw, &list); err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(list.Manifests) > maxEntries {
		return ocispec.Descriptor{}, errdefs.InvalidArgument.Errorf("index: %d manifests; at most %d are allowed", len(list.Manifests), maxEntries)
	}
	wanted := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if platform != nil {
		wanted = *platform
		if wanted.Architecture == "" {
			wanted.Architecture = runtime.GOARCH
		}
	}
	chosen, found := choose(list.Manifests, wanted)
	if !found {
		return chosen, errdefs.NotFound.Errorf("no matching manifest for %s in the manifest list entries", platformText(wanted))
	}
	return chosen, checkDescriptor("index", chosen)
}

func platformText(p ocispec.Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// choose returns the entry that suits best. An entry that names no platform
// suits if nothing else does.
func choose(entries []ocispec.Descriptor, wanted ocispec.Platform) (best ocispec.Descriptor, found bool) {
	bestRank := 0
	for _, entry := range entries {
		if !isIndex(entry.MediaType) && entry.MediaType != DockerManifest && entry.MediaType != ocispec.MediaTypeImageManifest {
			continue
		}
		if rank := suits(wanted, entry.Platform); rank > bestRank {
			best, bestRank = entry, rank
		}
	}
	return best, bestRank > 0
}

// Runs is true if what is for has runs where wanted does.
func Runs(wanted, has ocispec.Platform) bool { return suits(wanted, &has) > 0 }

// suits ranks a platform: 0 does not run, more is better. An ARM processor runs
// what is for its predecessors: v7 runs v6 and v5.
func suits(wanted ocispec.Platform, has *ocispec.Platform) int {
	if has == nil {
		return 1
	}
	if wanted.OS != "" && wanted.OS != has.OS || wanted.Architecture != "" && wanted.Architecture != has.Architecture {
		return 0
	}
	want, offers := variant(wanted.Architecture, wanted.Variant), variant(has.Architecture, has.Variant)
	if offers > want {
		return 0
	}
	if wanted.Variant != "" && has.Variant == wanted.Variant {
		return 100
	}
	return 10 + offers
}

// variant is the number of an architecture's variant, its usual one for "".
func variant(architecture, given string) int {
	number, err := strconv.Atoi(strings.TrimPrefix(given, "v"))
	switch {
	case err == nil && number >= 0 && number < 50:
		return number
	case architecture == "arm":
		return 7
	case architecture == "arm64":
		return 8
	}
	return 1
}

// Platforms lists what an index is for; an image's own platform is in its
// configuration.
func (m Manifest) Platforms() ([]ocispec.Platform, bool) {
	if !isIndex(m.Descriptor.MediaType) {
		return nil, false
	}
	var list ocispec.Index
	if decode("index", m.Raw, &list) != nil {
		return nil, true
	}
	platforms := []ocispec.Platform{}
	for _, entry := range list.Manifests[:min(len(list.Manifests), maxEntries)] {
		if entry.Platform != nil {
			platforms = append(platforms, *entry.Platform)
		}
	}
	return platforms, true
}
