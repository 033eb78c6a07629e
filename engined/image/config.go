package image

import (
	"encoding/json"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/engined/engined/proto/errdefs"
)

// maxConfig bounds an image configuration. Real ones have some kilobytes; the
// largest seen, with thousands of history lines, stay below one megabyte.
const maxConfig = 8 << 20

// maxLayers bounds an image's layers; the storage drivers' own bounds are lower.
const maxLayers = 1024

// config is a configuration and what follows from it. It is never changed.
type config struct {
	dockerspec.DockerOCIImage
	older // fields of Docker's format that the specification does not have
	chain digest.Digest
}

type older struct {
	Comment       string `json:"comment,omitempty"`
	DockerVersion string `json:"docker_version,omitempty"`
}

// parseConfig reads and checks a configuration from outside.
func parseConfig(raw []byte) (*config, error) {
	if len(raw) > maxConfig {
		return nil, errdefs.InvalidArgument.Errorf("image configuration: %d bytes; at most %d are allowed", len(raw), maxConfig)
	}
	c := &config{}
	if err := json.Unmarshal(raw, &c.DockerOCIImage); err != nil {
		return nil, errdefs.InvalidArgument.Errorf("image configuration: %w", err)
	}
	if err := json.Unmarshal(raw, &c.older); err != nil {
		return nil, errdefs.InvalidArgument.Errorf("image configuration: %w", err)
	}
	// "rootfs" is also absent in configurations of other artifacts, and in the
	// one of before Docker 1.10, whose layers were named otherwise.
	if c.RootFS.Type != "layers" {
		return nil, errdefs.InvalidArgument.Errorf("image configuration: rootfs.type is %q, expected \"layers\"", c.RootFS.Type)
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return nil, errdefs.InvalidArgument.Errorf("image configuration: rootfs.diff_ids has %d layers; at most %d are allowed", len(c.RootFS.DiffIDs), maxLayers)
	}
	for i, diff := range c.RootFS.DiffIDs {
		if err := diff.Validate(); err != nil {
			return nil, errdefs.InvalidArgument.Errorf("image configuration: rootfs.diff_ids[%d] is %q: %w", i, diff, err)
		}
	}
	c.chain = chainOf(c.RootFS.DiffIDs)
	return c, nil
}

// chainOf is the chain id of layers, bottom first; "" for none.
func chainOf(diffs []digest.Digest) digest.Digest {
	if len(diffs) == 0 {
		return ""
	}
	return identity.ChainID(append([]digest.Digest(nil), diffs...))
}

// created is when the image was made, as it says itself; zero if it does not.
func (c *config) created() time.Time {
	if c.DockerOCIImage.Created == nil {
		return time.Time{}
	}
	return *c.DockerOCIImage.Created
}

// comment is Docker's: its own field in old images, the last step's in new.
func (c *config) comment() string {
	if c.older.Comment != "" || len(c.History) == 0 {
		return c.older.Comment
	}
	return c.History[len(c.History)-1].Comment
}
