package container

import (
	"context"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/image"
)

// CommitRequest says what to make of a container.
type CommitRequest struct {
	Repository string
	Tag        string
	Author     string
	Comment    string
	Pause      bool // freeze it meanwhile, if it runs
	Changes    []string
	Config     *apicontainer.Config // nil: the container's own
}

// Commit makes an image of a container.
func (s *Service) Commit(ctx context.Context, ref string, req CommitRequest) (digest.Digest, error) {
	c, err := s.index.find(ref)
	if err != nil {
		return "", err
	}
	r := c.record.Load()
	if err := readable(r, "commit"); err != nil {
		return "", err
	}
	if req.Pause && r.Phase() == running {
		// One that has ended meanwhile, or was paused by others, is as still.
		if err := s.Pause(ctx, c.id); err == nil {
			defer s.goOn(ctx, c)
		}
	}
	asked := image.CommitRequest{Container: c.id, Parent: r.Image, Repository: req.Repository, Tag: req.Tag, Author: req.Author,
		Comment: req.Comment, Command: r.Config.Cmd, Changes: req.Changes, Own: imageConfig(r.Config)}
	if req.Config != nil {
		config := imageConfig(req.Config)
		asked.Asked = &config
	}
	id, reference, err := s.Images.Commit(ctx, asked)
	if err != nil {
		return "", err
	}
	s.tell(r, apievents.ActionCommit, map[string]string{"comment": req.Comment, "imageID": id.String(), "imageRef": reference})
	return id, nil
}

// goOn ends the pause of a commit, whether or not the client is still there.
func (s *Service) goOn(ctx context.Context, c *container) {
	if err := s.Unpause(context.WithoutCancel(ctx), c.id); err != nil {
		s.Logger.Warn("unpausing after a commit", "container", c.id, "error", err)
	}
}

// imageConfig is the part of a container's configuration that images have.
func imageConfig(c *apicontainer.Config) dockerspec.DockerOCIImageConfig {
	ports := map[string]struct{}{}
	for port := range c.ExposedPorts {
		ports[port.String()] = struct{}{}
	}
	return dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{User: c.User, ExposedPorts: ports, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
			Volumes: c.Volumes, WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{Healthcheck: c.Healthcheck, OnBuild: c.OnBuild, Shell: c.Shell},
	}
}
