package image

import (
	"context"

	"github.com/distribution/reference"
	apiregistry "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/proto/errdefs"
)

// Distribution asks a registry what it has under a name, without getting it.
func (s *Store) Distribution(ctx context.Context, image string, auth registry.Auth) (told apiregistry.DistributionInspect, err error) {
	ref, err := pullReference(image, "")
	if err != nil {
		return told, err
	}
	if reference.IsNameOnly(ref) {
		ref = reference.TagNameOnly(ref)
	}
	from := s.Remote.Pull(ctx, ref, auth)
	top, err := from.Manifest(ctx, atOf(ref))
	if err != nil {
		return told, err
	}
	told.Descriptor = top.Descriptor
	if platforms, several := top.Platforms(); several {
		told.Platforms = platforms
		return told, nil
	}
	found, err := from.Resolve(ctx, top.Descriptor.Digest.String(), nil)
	if err != nil {
		return told, err
	}
	raw, err := from.Small(ctx, found.Config, maxConfig)
	if err != nil {
		return told, err
	}
	var platform ocispec.Platform
	if err := decodeJSON("image configuration", raw, &platform); err != nil {
		return told, errdefs.InvalidArgument.Errorf("%w", err)
	}
	told.Platforms = []ocispec.Platform{platform}
	return told, nil
}
