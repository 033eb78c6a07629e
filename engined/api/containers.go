package api

import (
	"context"
	"io"
	"net/http"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	apivolume "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/proto/errdefs"
)

// containers is what this package needs of package container.
type containers interface {
	Create(ctx context.Context, request container.CreateRequest) (apicontainer.CreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, options container.StopOptions) error
	Restart(ctx context.Context, ref string, options container.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Wait(ctx context.Context, ref string, condition apicontainer.WaitCondition) (<-chan apicontainer.WaitResponse, error)
	Remove(ctx context.Context, ref string, options container.RemoveOptions) error
	Rename(ctx context.Context, ref, name string) error
	Resize(ctx context.Context, ref string, height, width uint16) error
	List(ctx context.Context, options container.ListOptions) ([]apicontainer.Summary, error)
	Inspect(ctx context.Context, ref string, size bool) (apicontainer.InspectResponse, error)
	Top(ctx context.Context, ref, psArgs string) (apicontainer.TopResponse, error)
	Logs(ctx context.Context, ref string, options container.LogsOptions, w container.LogWriter) error
	Attach(ctx context.Context, ref string, options container.AttachOptions, upgrade container.Upgrade) error
	ExecCreate(ctx context.Context, ref string, request apicontainer.ExecCreateRequest) (string, error)
	ExecStart(ctx context.Context, id string, options container.ExecStartOptions, upgrade container.Upgrade) error
	ExecInspect(ctx context.Context, id string) (apicontainer.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width uint16) error
	Prune(ctx context.Context, filters map[string][]string) (apicontainer.PruneReport, error)
	Commit(ctx context.Context, ref string, request container.CommitRequest) (digest.Digest, error)
	Export(ctx context.Context, ref string, to io.Writer) error
	VolumeUsage(ctx context.Context) ([]apivolume.Volume, error)
}

// createBody is the body of POST /containers/create: the newest version's
// fields and those that it dropped.
type createBody struct {
	apicontainer.CreateRequest
	legacyCreate
}

func (s *Server) containerCreate(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	name, platformText := q.text("name"), q.text("platform")
	if q.err != nil {
		return q.err
	}
	request, err := decodeCreate(w, r)
	if err != nil {
		return err
	}
	platform, err := parsePlatform(platformText, versionOf(r))
	if err != nil {
		return err
	}
	created, err := s.Containers.Create(r.Context(), container.CreateRequest{
		Name:             name,
		Config:           request.Config,
		HostConfig:       request.HostConfig,
		NetworkingConfig: request.NetworkingConfig,
		Platform:         platform,
	})
	if err != nil {
		return err
	}
	if created.Warnings == nil {
		created.Warnings = []string{} // [] and not null
	}
	return writeJSON(w, http.StatusCreated, created)
}

// decodeCreate reads a create request of any version as one of the newest.
func decodeCreate(w http.ResponseWriter, r *http.Request) (apicontainer.CreateRequest, error) {
	var body createBody
	if err := decodeJSON(w, r, &body); err != nil {
		return body.CreateRequest, err
	}
	if body.Config == nil {
		return body.CreateRequest, errdefs.InvalidArgument.Errorf("config cannot be empty in order to create a container")
	}
	return body.CreateRequest, versionOf(r).adaptCreate(&body.CreateRequest, body.legacyCreate)
}

// parsePlatform reads OS[/ARCHITECTURE[/VARIANT]], which came with 1.41.
func parsePlatform(text string, v Version) (*ocispec.Platform, error) {
	if text == "" || v.Before(41) {
		return nil, nil //nolint:nilnil // no platform was asked for
	}
	parts := strings.Split(text, "/")
	if len(parts) > 3 || parts[0] == "" {
		return nil, errdefs.InvalidArgument.Errorf("parameter platform: expected os[/arch[/variant]], got %q", text)
	}
	parts = append(parts, "", "")
	return &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}, nil
}

func (s *Server) containerList(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	options := container.ListOptions{All: q.flag("all"), Size: q.flag("size"), Filters: q.filters()}
	if limit := q.integer("limit"); limit != nil {
		options.Limit = *limit
	}
	// since and before were parameters before they were filters.
	for _, name := range []string{"since", "before"} {
		if value := q.text(name); value != "" && options.Filters == nil {
			options.Filters = map[string][]string{name: {value}}
		}
	}
	if q.err != nil {
		return q.err
	}
	list, err := s.Containers.List(r.Context(), options)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, versionOf(r).list(list))
}

func (s *Server) containerInspect(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	size := q.flag("size")
	if q.err != nil {
		return q.err
	}
	found, err := s.Containers.Inspect(r.Context(), r.PathValue("id"), size)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, versionOf(r).inspect(found))
}

func (s *Server) containerTop(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	args := q.text("ps_args")
	if q.err != nil {
		return q.err
	}
	top, err := s.Containers.Top(r.Context(), r.PathValue("id"), args)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, top)
}

func (s *Server) containerRemove(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	options := container.RemoveOptions{Force: q.flag("force"), Volumes: q.flag("v")}
	if q.flag("link") {
		q.fail("link", q.text("link"), "no links: they are not implemented")
	}
	if q.err != nil {
		return q.err
	}
	return noContent(w, s.Containers.Remove(r.Context(), r.PathValue("id"), options))
}

func (s *Server) containerRename(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	name := q.text("name")
	if q.err != nil {
		return q.err
	}
	if name == "" {
		return errdefs.InvalidArgument.Errorf("Neither old nor new names may be empty")
	}
	return noContent(w, s.Containers.Rename(r.Context(), r.PathValue("id"), name))
}

func (s *Server) containerPrune(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	filters := q.filters()
	if q.err != nil {
		return q.err
	}
	report, err := s.Containers.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// noContent answers 204 to what succeeded.
func noContent(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
