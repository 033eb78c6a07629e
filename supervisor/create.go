package supervisor

import (
	"context"
	"path/filepath"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// CreateContainer creates a container and, unless asked not to, starts it. A
// client that goes away meanwhile changes nothing: the container is created,
// and the events say so.
func (s *Supervisor) CreateContainer(ctx context.Context, request *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
	recipe, err := recipeOf(request)
	if err != nil {
		return nil, err
	}
	return do(ctx, s, request.Id, exclusive, func(context.Context) (*api.CreateContainerResponse, error) {
		message, err := s.create(recipe)
		if err != nil {
			return nil, err
		}
		s.host.Reserve.Refill()
		return &api.CreateContainerResponse{Container: message}, nil
	})
}

func (s *Supervisor) create(recipe runtime.Recipe) (*api.Container, error) {
	err := s.ask(func(t *table) error {
		if _, exists := t.containers[recipe.ID]; exists {
			return errdefs.AlreadyExists.Coded(errdefs.NameTaken, recipe.ID, "container %s exists already", recipe.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.host.Clear(s.life, recipe.ID); err != nil {
		return nil, err
	}
	spec, err := bundleProcess(recipe.Bundle)
	if err != nil {
		return nil, err
	}
	recipe.Init.Terminal = spec.Terminal
	if size := spec.ConsoleSize; size != nil && recipe.Init.Width == 0 && recipe.Init.Height == 0 {
		recipe.Init.Width, recipe.Init.Height = uint16(size.Width), uint16(size.Height)
	}
	handle, started, err := s.startWithWorker(recipe)
	if err != nil {
		return nil, err
	}
	failpoint.At("supervisor-container-started")
	return s.admit(handle, newProcess(runtime.Init, spec, recipe.Init), recipe.Init.CreateOnly, started)
}

// admit puts a new container into the table, with the events that say so, and
// begins to watch it.
func (s *Supervisor) admit(handle *runtime.Container, init *process, createOnly bool, started runtime.Started) (message *api.Container, err error) {
	id := handle.ID()
	c := &container{handle: handle, status: statusCreated, processes: []*process{init}}
	steps := []step{{&api.Event{Type: eventCreated, Id: id}, func(t *table) {
		t.containers[id] = c
		c.started(init, started) // its pid is known, its start time is set again when it starts
		message = c.view()
	}}}
	if !createOnly {
		steps = append(steps, startOf(c, id, started, &message))
	}
	if err := s.recordAll(steps...); err != nil {
		return nil, err
	}
	s.attend(c)
	return message, nil
}

// recipeOf validates a request.
func recipeOf(request *api.CreateContainerRequest) (runtime.Recipe, error) {
	recipe := runtime.Recipe{
		ID: request.Id, Bundle: filepath.Clean(request.BundlePath), Runtime: request.Runtime,
		RuntimeArgs: request.RuntimeArgs, Labels: request.Labels,
	}
	if err := checkID("id", request.Id); err != nil {
		return recipe, err
	}
	if !filepath.IsAbs(request.BundlePath) {
		return recipe, errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, request.BundlePath,
			"bundlePath: %q, expected an absolute path", request.BundlePath)
	}
	if err := checkRestore(request); err != nil {
		return recipe, err
	}
	log, err := logOf(request.Log)
	if err != nil {
		return recipe, err
	}
	if err := checkFifos(request.Stdin, request.Stdout, request.Stderr); err != nil {
		return recipe, err
	}
	width, height, err := sizeOf(request.Width, request.Height)
	if err != nil {
		return recipe, err
	}
	recipe.Init = runtime.Request{
		Width: width, Height: height,
		Stdin: request.Stdin, Stdout: request.Stdout, Stderr: request.Stderr,
		OpenStdin: request.OpenStdin, StdinOnce: request.StdinOnce, AwaitAttach: int(min(request.AwaitAttach, maxAttach)),
		Log: log, CreateOnly: request.CreateOnly, NoPivot: request.NoPivotRoot,
		Checkpoint: request.Checkpoint, CheckpointDir: request.CheckpointDir,
	}
	return recipe, nil
}
