package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/layer"
)

// CommitRequest describes the image to make of a container's changes.
type CommitRequest struct {
	Container  string        // whose writable layer is read
	Parent     digest.Digest // the image that the container was made of
	Repository string        // "" leaves the image without a name
	Tag        string
	Author     string
	Comment    string
	Command    []string // the container's, for the history
	Changes    []string // Dockerfile instructions

	// Asked is the configuration to begin with; nil is the container's own,
	// which in any case gives what is missing.
	Asked *dockerspec.DockerOCIImageConfig
	Own   dockerspec.DockerOCIImageConfig
}

// Commit makes an image of a container: its own image, and one layer with what
// it changed, if it did.
func (s *Store) Commit(ctx context.Context, req CommitRequest) (id digest.Digest, reference string, err error) {
	var names []name
	if req.Repository != "" {
		n, err := parseTag(req.Repository, req.Tag)
		if err != nil {
			return "", "", err
		}
		names, reference = []name{n}, n.familiar()
	}
	settings, err := req.settings()
	if err != nil {
		return "", "", err
	}
	parent, err := s.find(ctx, req.Parent.String())
	if err != nil {
		return "", "", err
	}
	if parent.damage != nil {
		return "", "", parent.damage
	}
	working := work()
	defer s.release(ctx, working)
	added, err := s.changesOf(ctx, req.Container, parent.chain, working)
	if err != nil {
		return "", "", err
	}
	raw, err := req.encode(parent.config, settings, added.Diff)
	if err != nil {
		return "", "", err
	}
	parsed, err := parseConfig(raw)
	if err != nil {
		return "", "", err
	}
	if id, err = s.add(ctx, addition{raw: raw, config: parsed, parent: parent.id, names: names}); err != nil {
		return "", "", err
	}
	for _, n := range names {
		s.publish(apievents.ActionTag, id.String(), n.familiar(), settings.Labels)
	}
	return id, reference, nil
}

// changesOf makes a layer of what a container changed.
func (s *Store) changesOf(ctx context.Context, container string, parent digest.Digest, working string) (layer.Layer, error) {
	reader, writer := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		writer.CloseWithError(s.layers.WriteDiff(ctx, container, writer)) // nil is the end of the stream
	}()
	added, err := s.layers.Register(ctx, layer.RegisterRequest{Parent: parent, Owner: working}, reader)
	_ = reader.Close() // never fails; ends a writer that nobody listens to
	<-done
	if err != nil {
		return layer.Layer{}, fmt.Errorf("making a layer of the changes: %w", err)
	}
	return added, nil
}

// emptyDiff is the digest of a tar without entries: two blocks of zeros.
var emptyDiff = digest.FromBytes(make([]byte, 1024))

// encode makes the configuration of the image. No change makes no layer.
func (req *CommitRequest) encode(parent *config, settings dockerspec.DockerOCIImageConfig, diff digest.Digest) ([]byte, error) {
	now := time.Now().UTC()
	image := parent.DockerOCIImage
	image.Created, image.Author, image.Config = &now, req.Author, settings
	image.RootFS.DiffIDs, image.History = slices.Clone(image.RootFS.DiffIDs), slices.Clone(image.History)
	if diff != emptyDiff {
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, diff)
	}
	image.History = append(image.History, ocispec.History{Created: &now, CreatedBy: strings.Join(req.Command, " "),
		Author: req.Author, Comment: req.Comment, EmptyLayer: diff == emptyDiff})
	raw, err := json.Marshal(image)
	if err != nil {
		return nil, fmt.Errorf("encoding the image configuration: %w", err)
	}
	return raw, nil
}

// settings are what was asked for, changed by the instructions, completed by the
// container's own.
func (req *CommitRequest) settings() (dockerspec.DockerOCIImageConfig, error) {
	base := req.Own
	if req.Asked != nil {
		base = *req.Asked
	}
	settings, err := applyChanges(base, req.Changes)
	if err == nil {
		complete(&settings, req.Own)
	}
	return settings, err
}

// complete gives c what it lacks and own has, by dockerd's rules: a list of
// commands is taken whole, what is a map or set by its keys.
func complete(c *dockerspec.DockerOCIImageConfig, own dockerspec.DockerOCIImageConfig) {
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd, c.ArgsEscaped = own.Cmd, own.ArgsEscaped //nolint:staticcheck // Windows' images have it
		}
		if c.Entrypoint == nil {
			c.Entrypoint = own.Entrypoint
		}
	}
	for field, missing := range map[*string]string{&c.User: own.User, &c.WorkingDir: own.WorkingDir, &c.StopSignal: own.StopSignal} {
		if *field == "" {
			*field = missing
		}
	}
	c.Env = completeEnv(c.Env, own.Env)
	c.Labels = completed(c.Labels, own.Labels)
	c.Volumes = completed(c.Volumes, own.Volumes)
	c.ExposedPorts = completed(c.ExposedPorts, own.ExposedPorts)
	if c.Healthcheck == nil {
		c.Healthcheck = own.Healthcheck
	}
}

func completed[V any](c, own map[string]V) map[string]V {
	if len(c) == 0 {
		return own
	}
	for key, value := range own {
		if _, has := c[key]; !has {
			c = maps.Clone(c)
			c[key] = value
		}
	}
	return c
}

func completeEnv(env, own []string) []string {
	have := map[string]bool{}
	for _, variable := range env {
		key, _, _ := strings.Cut(variable, "=")
		have[key] = true
	}
	for _, variable := range own {
		if key, _, _ := strings.Cut(variable, "="); !have[key] {
			env = append(env, variable)
		}
	}
	return env
}
