package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	apiregistry "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/proto/errdefs"
)

// images is what the API needs of package image.
type images interface {
	Fetch(ctx context.Context, source string, report image.Report) (io.ReadCloser, error)
	Import(ctx context.Context, req image.ImportRequest, tar io.Reader) (digest.Digest, error)
	Pull(ctx context.Context, req image.PullRequest, report image.Report) error
	Push(ctx context.Context, req image.PushRequest, report image.Report) error
	Distribution(ctx context.Context, ref string, auth registry.Auth) (apiregistry.DistributionInspect, error)
	Load(ctx context.Context, stream io.Reader, opts image.LoadOptions, report image.Report) error
	Save(ctx context.Context, refs []string, platforms ...ocispec.Platform) (*image.Saving, error)
	LayersSize(ctx context.Context) (int64, error)
	List(ctx context.Context, opts image.ListOptions) ([]apiimage.Summary, error)
	Inspect(ctx context.Context, ref string, platforms ...ocispec.Platform) (image.Inspected, error)
	History(ctx context.Context, ref string, platforms ...ocispec.Platform) ([]apiimage.HistoryResponseItem, error)
	Tag(ctx context.Context, ref, repository, tag string) error
	Remove(ctx context.Context, ref string, opts image.RemoveOptions) ([]apiimage.DeleteResponse, error)
	Prune(ctx context.Context, filters image.Filters, running map[string]bool) (apiimage.PruneReport, error)
}

func (s *Server) imageList(w http.ResponseWriter, r *http.Request) error {
	q, version := queryOf(r), versionOf(r)
	opts := image.ListOptions{All: q.flag("all"), SharedSize: q.flag("shared-size"), Containers: !version.Before(51), Filters: q.filters()}
	if name := q.text("filter"); name != "" && version.Before(41) {
		if opts.Filters == nil {
			opts.Filters = image.Filters{}
		}
		opts.Filters["reference"] = append(opts.Filters["reference"], name)
	}
	if q.err != nil {
		return q.err
	}
	list, err := s.Images.List(r.Context(), opts)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, version.imageList(list))
}

// legacySummary has the fields of before 1.44.
type legacySummary struct {
	apiimage.Summary
	VirtualSize int64
}

// imageList returns a list as version v writes it. Until 1.43 images without a
// name had <none> for one, and old command lines print nothing else for them.
func (v Version) imageList(list []apiimage.Summary) any {
	if !v.Before(44) {
		return list
	}
	legacy := make([]legacySummary, len(list))
	for i, summary := range list {
		if v.Before(43) && len(summary.RepoTags) == 0 && len(summary.RepoDigests) == 0 {
			summary.RepoTags, summary.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
		legacy[i] = legacySummary{summary, summary.Size}
	}
	return legacy
}

// legacyImage has the fields of before 1.52.
type legacyImage struct {
	apiimage.InspectResponse
	Parent        string
	DockerVersion string
	VirtualSize   *int64 `json:",omitempty"` // until 1.43
}

// imageInspect returns an image as version v writes it.
func (v Version) imageInspect(i image.Inspected) any {
	if !v.Before(52) {
		return i.InspectResponse
	}
	legacy := legacyImage{InspectResponse: i.InspectResponse, Parent: i.Parent, DockerVersion: i.DockerVersion}
	if v.Before(44) {
		legacy.VirtualSize = &i.Size
	}
	return legacy
}

func (s *Server) imageInspect(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	platforms := q.platforms()
	if q.err != nil {
		return q.err
	}
	inspected, err := s.Images.Inspect(r.Context(), r.PathValue("name"), platforms...)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, versionOf(r).imageInspect(inspected))
}

func (s *Server) imageHistory(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	platforms := q.platforms()
	if q.err != nil {
		return q.err
	}
	history, err := s.Images.History(r.Context(), r.PathValue("name"), platforms...)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, history)
}

// imageCreate pulls (fromImage) or imports (fromSrc, - for the body).
func (s *Server) imageCreate(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	platform, err := parsePlatform(q.text("platform"), versionOf(r))
	if err != nil {
		return err
	}
	if q.text("fromImage") != "" {
		return s.imagePull(w, r, q, platform)
	}
	req := image.ImportRequest{Repository: q.text("repo"), Tag: q.text("tag"), Message: q.text("message"), Changes: q.values["changes"], Platform: platform}
	stream := progressTo(w)
	switch req.Source = q.text("fromSrc"); req.Source {
	case "":
		return errdefs.InvalidArgument.Errorf("parameter fromSrc: expected - (the request's body) or a URL")
	case "-":
		return stream.end(s.imageImport(r.Context(), req, r.Body, stream))
	}
	body, err := s.Images.Fetch(r.Context(), req.Source, stream.report)
	if err != nil {
		return stream.end(err)
	}
	defer body.Close()
	return stream.end(s.imageImport(r.Context(), req, body, stream))
}

func (s *Server) imageImport(ctx context.Context, req image.ImportRequest, tar io.Reader, stream *progressStream) error {
	id, err := s.Images.Import(ctx, req, tar)
	if err == nil {
		stream.report(jsonstream.Message{Status: id.String()})
	}
	return err
}

func (s *Server) imageLoad(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	platforms := q.platforms()
	quiet := q.flagOr("quiet", true)
	if q.err != nil {
		return q.err
	}
	opts := image.LoadOptions{Quiet: quiet}
	switch len(platforms) {
	case 0:
	case 1:
		opts.Platform = &platforms[0]
	default:
		return errdefs.NotImplemented.Errorf("parameter platform: loading several platforms is not implemented by engined, which keeps one of each image")
	}
	stream := progressTo(w)
	return stream.end(s.Images.Load(r.Context(), r.Body, opts, stream.report))
}

// platforms reads the parameter platform where it is an object (since 1.48), and
// may be there several times (since 1.52).
func (q *query) platforms() []ocispec.Platform {
	var platforms []ocispec.Platform
	for _, given := range q.values["platform"] {
		var platform ocispec.Platform
		if err := json.Unmarshal([]byte(given), &platform); err != nil {
			q.fail("platform", given, `JSON like {"os":"linux","architecture":"amd64"}`)
		}
		platforms = append(platforms, platform)
	}
	return platforms
}

// imageSave serves /images/{name}/get and /images/get?names=.
func (s *Server) imageSave(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	platforms := q.platforms()
	if q.err != nil {
		return q.err
	}
	refs := q.values["names"]
	if name := r.PathValue("name"); name != "" {
		refs = []string{name}
	}
	if len(refs) == 0 {
		return errdefs.InvalidArgument.Errorf("parameter names: expected at least one image")
	}
	saving, err := s.Images.Save(r.Context(), refs, platforms...)
	if err != nil {
		return err
	}
	defer saving.Close(r.Context())
	w.Header().Set("Content-Type", tarType)
	return saving.Write(r.Context(), w)
}

func (s *Server) imageTag(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	if err := s.Images.Tag(r.Context(), r.PathValue("name"), q.text("repo"), q.text("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) imageRemove(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	opts := image.RemoveOptions{Force: q.flag("force"), NoPrune: q.flag("noprune")}
	if q.err != nil {
		return q.err
	}
	var err error
	if opts.Running, err = s.running(r.Context()); err != nil {
		return err
	}
	removed, err := s.Images.Remove(r.Context(), r.PathValue("name"), opts)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, removed)
}

// running returns the ids of running containers. One that starts meanwhile
// already holds its image, and its layers stay in any case.
func (s *Server) running(ctx context.Context) (map[string]bool, error) {
	list, err := s.Containers.List(ctx, container.ListOptions{})
	if err != nil {
		return nil, err
	}
	running := make(map[string]bool, len(list))
	for _, c := range list {
		running[c.ID] = true
	}
	return running, nil
}

func (s *Server) imagePrune(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	filters := q.filters()
	if q.err != nil {
		return q.err
	}
	running, err := s.running(r.Context())
	if err != nil {
		return err
	}
	report, err := s.Images.Prune(r.Context(), filters, running)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// progressStream is an answer of one JSON message per line.
type progressStream struct {
	header  http.Header
	encoder *json.Encoder
	begun   bool
	failed  error // the client is gone: no more is written
}

func progressTo(w http.ResponseWriter) *progressStream {
	encoder := json.NewEncoder(flushed(w))
	encoder.SetEscapeHTML(false)
	return &progressStream{header: w.Header(), encoder: encoder}
}

// streamed is a message with the field that clients before 1.52 also read.
type streamed struct {
	jsonstream.Message
	ErrorText string `json:"error,omitempty"`
}

func (p *progressStream) report(message jsonstream.Message) { p.write(streamed{Message: message}) }

func (p *progressStream) write(message streamed) {
	if !p.begun {
		p.begun = true
		p.header.Set("Content-Type", "application/json")
	}
	if p.failed == nil {
		p.failed = p.encoder.Encode(message)
	}
}

// end ends the stream: an error is part of it, unless nothing was sent yet and
// a status can still tell.
func (p *progressStream) end(err error) error {
	if err == nil || !p.begun {
		return err
	}
	text := message(err)
	p.write(streamed{jsonstream.Message{Error: &jsonstream.Error{Code: status(err), Message: text}}, text})
	return nil
}
