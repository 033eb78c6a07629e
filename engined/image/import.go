package image

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/proto/errdefs"
)

// ImportRequest describes the image to make of a file tree.
type ImportRequest struct {
	Repository string // "" leaves the image without a name
	Tag        string // "" is latest
	Source     string // where the tar is from, for the history; "" is the request itself
	Message    string
	Changes    []string          // Dockerfile instructions
	Platform   *ocispec.Platform // nil is this machine's
}

// Import makes an image with one layer out of a tar of a file tree.
func (s *Store) Import(ctx context.Context, req ImportRequest, tar io.Reader) (digest.Digest, error) {
	var names []name
	if req.Repository != "" {
		n, err := parseTag(req.Repository, req.Tag)
		if err != nil {
			return "", err
		}
		names = []name{n}
	}
	settings, err := applyChanges(dockerspec.DockerOCIImageConfig{}, req.Changes)
	if err != nil {
		return "", err
	}
	platform, err := importPlatform(req.Platform)
	if err != nil {
		return "", err
	}
	working := work()
	defer s.release(ctx, working)
	bottom, err := s.layers.Register(ctx, layer.RegisterRequest{Owner: working}, tar)
	if err != nil {
		return "", fmt.Errorf("importing: %w", err)
	}
	raw, err := encodeImport(bottom.Diff, platform, settings, cmp.Or(req.Message, "Imported from "+cmp.Or(req.Source, "-")))
	if err != nil {
		return "", err
	}
	parsed, err := parseConfig(raw)
	if err != nil {
		return "", err
	}
	id, err := s.add(ctx, addition{raw: raw, config: parsed, names: names})
	if err != nil {
		return "", err
	}
	for _, n := range names {
		s.publish(apievents.ActionTag, id.String(), n.familiar(), settings.Labels)
	}
	s.publish(apievents.ActionImport, id.String(), id.String(), settings.Labels)
	return id, nil
}

// importPlatform is the image's platform; only Linux ones can run here.
func importPlatform(wanted *ocispec.Platform) (ocispec.Platform, error) {
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if wanted == nil {
		return platform, nil
	}
	if wanted.OS != "" && wanted.OS != "linux" {
		return platform, errdefs.InvalidArgument.Errorf("operating system is not supported: %s", wanted.OS)
	}
	if wanted.Architecture != "" {
		platform.Architecture, platform.Variant = wanted.Architecture, wanted.Variant
	}
	return platform, nil
}

func encodeImport(diff digest.Digest, platform ocispec.Platform, settings dockerspec.DockerOCIImageConfig, message string) ([]byte, error) {
	now := time.Now().UTC()
	image := dockerspec.DockerOCIImage{
		Image: ocispec.Image{
			Created:  &now,
			Platform: platform,
			RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}},
			History:  []ocispec.History{{Created: &now, Comment: message}},
		},
		Config: settings,
	}
	raw, err := json.Marshal(image)
	if err != nil {
		return nil, fmt.Errorf("encoding the image configuration: %w", err)
	}
	return raw, nil
}

// release ends a call's hold on layers, also when the call's context is over.
// If it fails, the next start does it.
func (s *Store) release(ctx context.Context, owner string) {
	if err := s.layers.Release(context.WithoutCancel(ctx), owner); err != nil {
		s.log.WarnContext(ctx, "releasing layers of a call; the next start does it", "owner", owner, "err", err)
	}
}
