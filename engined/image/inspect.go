package image

import (
	"context"
	"time"

	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspected is what `docker image inspect` shows, and what it showed before.
type Inspected struct {
	apiimage.InspectResponse
	Parent        string // the image it was built on, here; "" for none
	DockerVersion string // of who made it, as its configuration says
}

// Inspect tells all about an image.
func (s *Store) Inspect(ctx context.Context, ref string, platforms ...ocispec.Platform) (Inspected, error) {
	found, err := s.find(ctx, ref)
	if err != nil {
		return Inspected{}, err
	}
	if found.damage != nil {
		return Inspected{}, found.damage
	}
	if err := found.suits(ref, platforms); err != nil {
		return Inspected{}, err
	}
	tags, digests := familiar(found.names)
	c := found.config
	response := apiimage.InspectResponse{
		ID: found.id.String(), RepoTags: tags, RepoDigests: digests,
		Comment: c.comment(), Author: c.Author, Config: &c.Config,
		Architecture: c.Architecture, Variant: c.Variant, Os: c.OS, OsVersion: c.OSVersion,
		Size:     found.size,
		RootFS:   apiimage.RootFS{Type: c.RootFS.Type},
		Metadata: apiimage.Metadata{LastTagTime: found.tagged},
	}
	if created := c.created(); !created.IsZero() {
		response.Created = created.Format(time.RFC3339Nano)
	}
	for _, diff := range c.RootFS.DiffIDs {
		response.RootFS.Layers = append(response.RootFS.Layers, diff.String())
	}
	data, err := s.layers.DescribeLayer(ctx, found.chain)
	if err != nil {
		return Inspected{}, err
	}
	response.GraphDriver = &storage.DriverData{Name: s.layers.Name(), Data: data}
	return Inspected{InspectResponse: response, Parent: found.parent.String(), DockerVersion: c.DockerVersion}, nil
}
