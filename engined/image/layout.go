package image

import (
	"fmt"
	"runtime"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

// Media types of Docker's registry format, which layouts hold, too.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"

	// containerd's and buildkit's annotation: a whole name, where the
	// specification's own may be a tag alone.
	annotationName = "io.containerd.image.name"
)

// maxIndexDepth bounds indexes in indexes; two are in use.
const maxIndexDepth = 4

// ociImages finds the images of an OCI image layout: of each entry of
// index.json the one for the platform.
func (a *archive) ociImages(platform *ocispec.Platform) ([]source, error) {
	wanted := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if platform != nil {
		wanted = *platform
	}
	var index ocispec.Index
	if err := a.decode("index.json", &index); err != nil {
		return nil, err
	}
	var sources []source
	for i, entry := range index.Manifests {
		if !forPlatform(entry, wanted) {
			continue
		}
		from, err := a.ociImage(entry, wanted, 0)
		if err != nil {
			return nil, fmt.Errorf("index.json manifests[%d]: %w", i, err)
		}
		if from == nil {
			continue
		}
		if tag := nameOf(entry.Annotations); tag != "" {
			from.tags = []string{tag}
		}
		if err := from.check(); err != nil {
			return nil, fmt.Errorf("index.json manifests[%d]: %w", i, err)
		}
		sources = append(sources, *from)
	}
	if len(sources) == 0 {
		return nil, noPlatform(&wanted)
	}
	return sources, nil
}

// nameOf returns the image's name if its annotations give a whole one.
func nameOf(annotations map[string]string) string {
	if whole := annotations[annotationName]; whole != "" {
		return whole
	}
	given := annotations[ocispec.AnnotationRefName]
	for _, r := range given {
		if r == ':' || r == '/' {
			return given
		}
	}
	return "" // a tag without a repository names nothing
}

// forPlatform is true unless the entry says that it is for another platform.
// Attestations call theirs unknown.
func forPlatform(entry ocispec.Descriptor, wanted ocispec.Platform) bool {
	return entry.Platform == nil || suits(wanted, *entry.Platform)
}

// ociImage follows a descriptor to an image; nil if there is none for wanted.
func (a *archive) ociImage(at ocispec.Descriptor, wanted ocispec.Platform, depth int) (*source, error) {
	switch at.MediaType {
	case ocispec.MediaTypeImageManifest, dockerManifest:
		return a.ociManifest(at)
	case ocispec.MediaTypeImageIndex, dockerManifestList:
	default:
		return nil, errdefs.NotImplemented.Errorf("media type %q is not supported", at.MediaType)
	}
	if depth >= maxIndexDepth {
		return nil, errdefs.InvalidArgument.Errorf("more than %d indexes in one another", maxIndexDepth)
	}
	var index ocispec.Index
	if err := a.decodeBlob(at.Digest, &index); err != nil {
		return nil, err
	}
	for _, entry := range index.Manifests {
		if !forPlatform(entry, wanted) || !a.has(blobFile(entry.Digest)) {
			continue // archives need not hold every platform of an index
		}
		if from, err := a.ociImage(entry, wanted, depth+1); err != nil || from != nil {
			return from, err
		}
	}
	return nil, nil
}

func (a *archive) ociManifest(at ocispec.Descriptor) (*source, error) {
	var manifest ocispec.Manifest
	if err := a.decodeBlob(at.Digest, &manifest); err != nil {
		return nil, err
	}
	switch manifest.Config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerConfig:
	default:
		return nil, errdefs.NotImplemented.Errorf("config media type %q is not an image's", manifest.Config.MediaType)
	}
	raw, err := a.readBlob(manifest.Config.Digest)
	if err != nil {
		return nil, err
	}
	from := &source{raw: raw}
	for i, l := range manifest.Layers {
		switch l.MediaType {
		case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, dockerLayer, dockerLayerGzip:
		default:
			return nil, errdefs.NotImplemented.Errorf("layers[%d]: media type %q is not supported", i, l.MediaType)
		}
		if err := l.Digest.Validate(); err != nil {
			return nil, errdefs.InvalidArgument.Errorf("layers[%d].digest %q: %w", i, l.Digest, err)
		}
		from.layers = append(from.layers, blob{file: blobFile(l.Digest), digest: l.Digest})
	}
	return from, nil
}

// blobFile is where a layout keeps a blob. A digest that is none has a name
// that no file has.
func blobFile(d digest.Digest) string {
	if d.Validate() != nil {
		return ""
	}
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// readBlob reads a small blob and verifies it.
func (a *archive) readBlob(d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, errdefs.InvalidArgument.Errorf("digest %q: %w", d, err)
	}
	raw, err := a.read(blobFile(d), maxConfig)
	if err != nil {
		return nil, err
	}
	if got := d.Algorithm().FromBytes(raw); got != d {
		return nil, errdefs.InvalidArgument.Errorf("the content of blob %s does not match its digest: it has %s", d, got)
	}
	return raw, nil
}

func (a *archive) decodeBlob(d digest.Digest, into any) error {
	raw, err := a.readBlob(d)
	if err != nil {
		return err
	}
	return decodeJSON(d.String(), raw, into)
}
