package container

import (
	"context"
	"path/filepath"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/engined/engined/engined/spec"
)

// Inspect tells all about one container. It waits for nobody, unless sizes are
// asked for.
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (apicontainer.InspectResponse, error) {
	c, err := s.index.find(ref)
	if err != nil {
		return apicontainer.InspectResponse{}, err
	}
	r := c.record.Load()
	found := apicontainer.InspectResponse{
		ID:              r.ID,
		Created:         r.Created.Format(time.RFC3339Nano),
		Path:            r.Path,
		Args:            append([]string{}, r.Args...),
		State:           state(r),
		Image:           r.Image.String(),
		ResolvConfPath:  filepath.Join(s.runDir(r.ID), "resolv.conf"),
		HostnamePath:    filepath.Join(s.runDir(r.ID), "hostname"),
		HostsPath:       filepath.Join(s.runDir(r.ID), "hosts"),
		Name:            "/" + r.Name,
		Driver:          s.Layers.Name(),
		Platform:        r.Platform,
		AppArmorProfile: appArmor(r),
		HostConfig:      r.HostConfig,
		Mounts:          mountPoints(r),
		Config:          r.Config,
		NetworkSettings: networkSettings(r),
	}
	if log, err := logSpec(r, s.logPath(r.ID)); err == nil && log != nil {
		found.LogPath = log.Path
	}
	for _, e := range s.execs.of(r.ID) {
		if e.runsNow() {
			found.ExecIDs = append(found.ExecIDs, e.id)
		}
	}
	if data, err := s.Layers.Describe(ctx, r.ID); err == nil {
		found.GraphDriver = &storage.DriverData{Name: s.Layers.Name(), Data: data}
	}
	if size {
		own, whole, err := s.sizes(ctx, r)
		if err != nil {
			return found, err
		}
		found.SizeRw, found.SizeRootFs = &own, &whole
	}
	return found, nil
}

func (e *command) runsNow() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started && e.ended.IsZero()
}

func appArmor(r *Record) string {
	security, err := spec.ParseSecurity(r.HostConfig.SecurityOpt)
	if err != nil { // checked at create
		return ""
	}
	return security.AppArmor
}

// never is how Docker writes a time that has not come.
const never = "0001-01-01T00:00:00Z"

// state is the phase in Docker's overlapping booleans.
func state(r *Record) *apicontainer.State {
	phase := r.Phase()
	st := &apicontainer.State{
		Status:     phase,
		Running:    phase == running || phase == paused || phase == restarting,
		Paused:     phase == paused,
		Restarting: phase == restarting,
		Dead:       phase == dead,
		ExitCode:   r.exitCode(),
		StartedAt:  never,
		FinishedAt: never,
	}
	if run := r.Run; run != nil {
		st.StartedAt = run.Started.Format(time.RFC3339Nano)
		if run.Exit == nil {
			st.Pid = run.Pid
		} else {
			st.FinishedAt = run.Exit.Time.UTC().Format(time.RFC3339Nano)
			st.OOMKilled, st.Error = run.Exit.OOMKilled, run.Exit.Reason
		}
	}
	switch {
	case r.RemoveFailed != nil:
		st.Error = r.RemoveFailed.Text
	case r.StartFailed != nil:
		st.Error = r.StartFailed.Text
	}
	return st
}

// networks is what the container has while it runs, else what it asked for.
func (r *Record) networks() map[string]*apinetwork.EndpointSettings {
	if r.up() && len(r.Run.Endpoints) > 0 {
		return r.Run.Endpoints
	}
	return r.Networks
}

func networkSettings(r *Record) *apicontainer.NetworkSettings {
	settings := &apicontainer.NetworkSettings{Networks: r.networks(), Ports: apinetwork.PortMap{}}
	if !r.up() {
		return settings
	}
	settings.SandboxID, settings.SandboxKey = r.ID, r.Run.Sandbox
	for port := range r.Config.ExposedPorts {
		settings.Ports[port] = nil
	}
	return settings
}
