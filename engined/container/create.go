package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/proto/errdefs"
)

// validName is Docker's rule for names; the slash before them is not theirs.
var validName = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// Create makes a container out of an image. It does not start it.
func (s *Service) Create(ctx context.Context, req CreateRequest) (apicontainer.CreateResponse, error) {
	if req.Config == nil {
		return apicontainer.CreateResponse{}, errdefs.InvalidArgument.Errorf("config cannot be empty in order to create a container")
	}
	found, err := s.Images.Resolve(ctx, req.Config.Image)
	if err != nil {
		return apicontainer.CreateResponse{}, err
	}
	if err := checkPlatform(req, found); err != nil {
		return apicontainer.CreateResponse{}, err
	}
	r, err := s.draft(req, found)
	if err != nil {
		return apicontainer.CreateResponse{}, err
	}
	warnings, err := s.check(r, found)
	if err != nil {
		return apicontainer.CreateResponse{}, err
	}
	ctx, cancel := begun(ctx)
	defer cancel()
	if err := s.settleName(r, req.Name); err != nil {
		return apicontainer.CreateResponse{}, err
	}
	if err := s.prepare(ctx, r, found); err != nil {
		s.index.unreserve(r.Name, r.ID)
		return apicontainer.CreateResponse{}, err
	}
	s.tell(r, apievents.ActionCreate, nil)
	return apicontainer.CreateResponse{ID: r.ID, Warnings: warnings}, nil
}

func checkPlatform(req CreateRequest, found image.Image) error {
	p := req.Platform
	if p == nil {
		return nil
	}
	have := found.Config.Platform
	if p.OS != "" && p.OS != have.OS || p.Architecture != "" && p.Architecture != have.Architecture {
		return errdefs.NotFound.Errorf("image with reference %s was found but its platform (%s/%s) does not match the specified platform (%s/%s)",
			req.Config.Image, have.OS, have.Architecture, p.OS, p.Architecture)
	}
	return nil
}

// draft fills a record in from the request, the image and the defaults.
func (s *Service) draft(req CreateRequest, found image.Image) (*Record, error) {
	config, err := mergeConfig(req.Config, found.Config.Config)
	if err != nil {
		return nil, err
	}
	r := &Record{
		ID:         newID(),
		Created:    time.Now().UTC(),
		Image:      found.ID,
		Platform:   "linux",
		Config:     config,
		HostConfig: cloneHost(req.HostConfig),
	}
	command := slices.Concat(config.Entrypoint, config.Cmd)
	if len(command) == 0 || command[0] == "" {
		return nil, errdefs.InvalidArgument.Errorf("no command specified")
	}
	r.Path, r.Args = command[0], command[1:]
	if err := s.fillIn(r); err != nil {
		return nil, err
	}
	r.Networks = askedNetworks(req.NetworkingConfig, r.HostConfig.NetworkMode, s.Networks.Default())
	r.Mounts, err = s.parseMounts(r)
	return r, err
}

func newID() string {
	var random [32]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(random[:])
}

// askedNetworks is what inspect shows of networks before the first start. What
// a client asks of the network "default" is asked of usual, as in dockerd.
func askedNetworks(config *apinetwork.NetworkingConfig, mode, usual apicontainer.NetworkMode) map[string]*apinetwork.EndpointSettings {
	asked := make(map[string]*apinetwork.EndpointSettings)
	if config != nil {
		for name, settings := range config.EndpointsConfig {
			if settings == nil {
				settings = &apinetwork.EndpointSettings{}
			}
			asked[name] = settings
		}
	}
	if settings, given := asked[apinetwork.NetworkDefault]; given {
		delete(asked, apinetwork.NetworkDefault)
		asked[usual.NetworkName()] = settings
	}
	if len(asked) == 0 && !mode.IsContainer() {
		asked[mode.NetworkName()] = &apinetwork.EndpointSettings{}
	}
	return asked
}

// settleName takes the name asked for, or one made up.
func (s *Service) settleName(r *Record, asked string) error {
	if asked == "" {
		return s.makeUpName(r)
	}
	if !validName.MatchString(asked) {
		return errdefs.InvalidArgument.Errorf("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", asked)
	}
	name := path.Base(asked)
	if err := s.index.reserve(name, r.ID); err != nil {
		return err
	}
	r.Name = name
	return nil
}

// prepare acquires what a container has while it exists. The record goes to
// disk first, marked: if engined dies in between, its next start removes all.
func (s *Service) prepare(ctx context.Context, r *Record, found image.Image) (err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	defer s.creations.begin(r)()

	now := time.Now().UTC()
	r.Preparing = &now
	if err := s.rows.save(ctx, r); err != nil {
		return err
	}
	undo.Add("remove the record", func(ctx context.Context) error { return s.rows.remove(ctx, r.ID) })
	if err := s.Images.Hold(ctx, found.ID, owner(r.ID)); err != nil {
		return err
	}
	undo.Add("release the image", func(ctx context.Context) error { return s.Images.Release(ctx, owner(r.ID)) })
	options := layer.CreateOptions{StorageOpt: r.HostConfig.StorageOpt}
	if err := s.Layers.Create(ctx, r.ID, found.Chain, options); err != nil {
		return err
	}
	undo.Add("remove the layer", func(ctx context.Context) error { return s.Layers.Remove(ctx, r.ID) })
	if err := os.Mkdir(s.dataDir(r.ID), 0o710); err != nil {
		return fmt.Errorf("creating container %s: %w", r.ID, err)
	}
	undo.Add("remove the directory", func(context.Context) error { return os.RemoveAll(s.dataDir(r.ID)) })
	if err := s.makeVolumes(r); err != nil {
		return errors.Join(err, s.removeAnonymous(r))
	}
	undo.Add("remove the volumes", func(context.Context) error { return s.removeAnonymous(r) })
	made := *r
	made.Preparing = nil
	if err := s.rows.save(ctx, &made); err != nil {
		return err
	}
	s.index.add(newContainer(&made))
	return nil
}

// owner is the name under which a container holds its image.
func owner(id string) string { return "container/" + id }
