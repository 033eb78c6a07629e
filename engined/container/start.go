package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/engined/network"
	"github.com/engined/engined/engined/spec"
	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
)

// Start starts a container that does not run.
func (s *Service) Start(ctx context.Context, ref string) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	release, err := c.turn.take(ctx, starting, c.id)
	if err != nil {
		return err
	}
	ctx, cancel := begun(ctx)
	defer cancel()
	err = s.start(ctx, c)
	failed := err != nil && errdefs.KindOf(err) != errdefs.NotModified
	r := c.record.Load()
	release()
	if failed && r.HostConfig.AutoRemove && r.StartFailed != nil {
		err = errors.Join(err, s.removeItself(ctx, c))
	}
	return err
}

// start is Start for a verb that has the turn.
func (s *Service) start(ctx context.Context, c *container) error {
	if err := allow(starting, c.record.Load()); err != nil {
		return err
	}
	if err := s.settle(ctx, c); err != nil {
		return err
	}
	parked := c.unpark()
	run, err := s.launch(ctx, c, parked)
	if err != nil {
		closeParked(append(parked, c.unpark()...))
		return errors.Join(err, s.noteStartFailed(ctx, c, err))
	}
	s.tell(c.record.Load(), apievents.ActionStart, nil)
	s.handOver(ctx, c, run.Socket, parked)
	s.handOver(ctx, c, run.Socket, c.unpark()) // who came meanwhile
	s.exitedEarly(c)
	return nil
}

// launch acquires what a run has and makes the one call that starts it.
func (s *Service) launch(ctx context.Context, c *container, parked []*parking) (_ *Run, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	r := c.record.Load()

	// The directory says that there is something to give back, and settle gives
	// back whatever of the following there is: it is the undo of each step, and
	// what a restart of engined does after a start that was cut half-way. It
	// deletes the task first: a call that was cut off may have been carried out.
	dir := s.runDir(c.id)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.id, err)
	}
	undo.Add("give back what the start acquired", func(ctx context.Context) error { return s.settle(ctx, c) })

	run := &Run{}
	if run.Rootfs, err = s.Layers.Mount(ctx, c.id); err != nil {
		return nil, fmt.Errorf("mounting the root filesystem of %s: %w", c.id, err)
	}
	if err := s.connect(ctx, r, run); err != nil {
		return nil, err
	}
	if err := s.writeBundle(ctx, r, run); err != nil {
		return nil, err
	}
	s.expect(c)
	defer s.unexpect(c)
	answer, err := s.Tasks.Create(ctx, createRequest(r, dir, s.logPath(c.id), len(parked)))
	if err != nil {
		return nil, err
	}
	if err := s.noteStarted(ctx, c, run, answer); err != nil {
		return nil, err
	}
	return run, nil
}

// connect makes the container's network and writes its files.
func (s *Service) connect(ctx context.Context, r *Record, run *Run) error {
	other, err := s.joined(r)
	if err != nil {
		return err
	}
	if other != nil {
		return s.share(r, run, other)
	}
	box, err := s.Networks.Allocate(ctx, networkRequest(r))
	if err != nil {
		return fmt.Errorf("connecting %s to network %s: %w", r.ID, r.HostConfig.NetworkMode, err)
	}
	run.Host, run.Sandbox, run.Endpoints = box.Host, box.Path, box.Endpoints
	return s.writeFiles(r.ID, map[string][]byte{
		"hostname":    []byte(r.Config.Hostname + "\n"),
		"hosts":       box.Hosts,
		"resolv.conf": box.ResolvConf,
	})
}

func (s *Service) writeFiles(id string, files map[string][]byte) error {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.runDir(id), name), content, 0o644); err != nil {
			return fmt.Errorf("writing %s of container %s: %w", name, id, err)
		}
	}
	return nil
}

func networkRequest(r *Record) network.Request {
	return network.Request{
		ContainerID:   r.ID,
		ContainerName: r.Name,
		Hostname:      r.Config.Hostname,
		Domainname:    r.Config.Domainname,
		Mode:          r.HostConfig.NetworkMode,
		Endpoints:     r.Networks,
		ExtraHosts:    r.HostConfig.ExtraHosts,
		DNS:           r.HostConfig.DNS,
		DNSSearch:     r.HostConfig.DNSSearch,
		DNSOptions:    r.HostConfig.DNSOptions,
	}
}

// writeBundle builds the spec and writes it where the runtime looks for it.
func (s *Service) writeBundle(ctx context.Context, r *Record, run *Run) error {
	if err := s.fillVolumes(ctx, r, run.Rootfs); err != nil {
		return err
	}
	input, err := s.specInput(r, run)
	if err != nil {
		return err
	}
	if r.Config.WorkingDir != "" {
		if err := spec.MakeWorkingDir(run.Rootfs, r.Config.WorkingDir); err != nil {
			return err
		}
	}
	made, err := spec.Build(input)
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(made)
	if err != nil {
		return fmt.Errorf("encoding the spec of %s: %w", r.ID, err)
	}
	return s.writeFiles(r.ID, map[string][]byte{"config.json": encoded})
}

func createRequest(r *Record, bundle, logPath string, await int) task.CreateRequest {
	log, err := logSpec(r, logPath)
	if err != nil { // checked at create; a record from elsewhere runs without a log
		log = nil
	}
	return task.CreateRequest{
		ID:          r.ID,
		Bundle:      bundle,
		Log:         log,
		OpenStdin:   r.Config.OpenStdin,
		StdinOnce:   r.Config.StdinOnce,
		AwaitAttach: await,
		Height:      uint16(min(r.HostConfig.ConsoleSize[0], 1<<16-1)),
		Width:       uint16(min(r.HostConfig.ConsoleSize[1], 1<<16-1)),
	}
}

// expect says that an exit may arrive before the start's answer.
func (s *Service) expect(c *container) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.starting, c.early = true, nil
}

func (s *Service) unexpect(c *container) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.starting = false
}

// noteStarted records the run. If it has already ended, exitedEarly tells so.
func (s *Service) noteStarted(ctx context.Context, c *container, run *Run, answer task.Container) error {
	run.Started, run.Socket = time.Now().UTC(), answer.Socket
	if p := answer.Process(initProcess); p != nil {
		run.Pid = p.Pid
		if !p.Started.IsZero() {
			run.Started = p.Started.UTC()
		}
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.starting = false
	return s.changeLocked(ctx, c, func(r *Record) error { return r.applyStarted(*run) })
}

// exitedEarly handles the exit that came before the start was recorded.
func (s *Service) exitedEarly(c *container) {
	c.writing.Lock()
	early := c.early
	c.early = nil
	c.writing.Unlock()
	if early != nil {
		s.exited(c, *early)
	}
}

// noteStartFailed records why a start failed and the exit status that Docker
// gives it.
func (s *Service) noteStartFailed(ctx context.Context, c *container, cause error) error {
	ctx, cancel := noting(ctx)
	defer cancel()
	failure := Failure{Time: time.Now().UTC(), Code: failureCode(cause), Text: cause.Error()}
	err := s.change(ctx, c, func(r *Record) error { return r.applyStartFailed(failure) })
	s.tell(c.record.Load(), apievents.ActionDie, map[string]string{"exitCode": fmt.Sprint(failure.Code)})
	return err
}

func failureCode(err error) int {
	switch errdefs.CodeOf(err) {
	case errdefs.ExecNotFound, errdefs.CwdMissing:
		return 127
	case errdefs.ExecPermission, errdefs.ExecIsDirectory, errdefs.ExecFormat:
		return 126
	}
	return 128
}
