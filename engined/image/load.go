package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/distribution/reference"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
)

// Report takes a line of a progress stream. It is called by one goroutine at a
// time, and not after the call it was given to has returned.
type Report func(jsonstream.Message)

// LoadOptions say what to take of an archive.
type LoadOptions struct {
	Quiet    bool // results only, no progress
	Platform *ocispec.Platform
}

// Load stores the images in an archive of `docker save`, or in an OCI image
// layout in a tar, compressed or not. Images before the one that fails stay.
func (s *Store) Load(ctx context.Context, stream io.Reader, opts LoadOptions, report Report) error {
	archive, err := spool(ctx, s.dir, stream)
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	defer archive.remove()
	sources, err := archive.images(opts.Platform)
	if err != nil {
		return err
	}
	working := work()
	defer s.release(ctx, working)
	archive.expect(sources)
	l := loader{store: s, working: working, archive: archive, opts: opts, report: locked(report)}
	var whole []source
	for _, from := range sources {
		if err = l.layers(ctx, from); err != nil {
			break
		}
		whole = append(whole, from)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, l.images(ctx, whole))
}

// source is an image in an archive: its parts by the archive's own file names.
type source struct {
	raw    []byte // the configuration
	config *config
	layers []blob // bottom first
	parent digest.Digest
	tags   []string
	names  []name // tags, checked
}

// blob is a file in the archive. Its digest is "" where the format gives none.
type blob struct {
	file   string
	digest digest.Digest
}

// loader is one call of Load.
type loader struct {
	store   *Store
	working string
	archive *archive
	opts    LoadOptions
	report  Report
}

// layers registers an image's layers, some at a time.
func (l *loader) layers(ctx context.Context, from source) error {
	if have, want := len(from.layers), len(from.config.RootFS.DiffIDs); have != want {
		return errdefs.InvalidArgument.Errorf("invalid manifest, layers length mismatch: expected %d, got %d", want, have)
	}
	if from.config.OS != "" && from.config.OS != "linux" {
		return errdefs.InvalidArgument.Errorf("cannot load %s image on linux", from.config.OS)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	turns := make(chan struct{}, unpackers)
	var parts sync.WaitGroup
	var below <-chan struct{}
	for i, diff := range from.config.RootFS.DiffIDs {
		turns <- struct{}{}
		req := layer.RegisterRequest{Parent: chainOf(from.config.RootFS.DiffIDs[:i]), Diff: diff, Owner: l.working, After: below}
		registered := make(chan struct{})
		parts.Go(func() {
			defer func() { <-turns }()
			if err := l.layer(ctx, req, from.layers[i]); err != nil {
				cancel(err) // of several failures the first
				return
			}
			close(registered)
		})
		below = registered
	}
	parts.Wait()
	return context.Cause(ctx)
}

// images stores images whose layers are there, and tells of them.
func (l *loader) images(ctx context.Context, whole []source) error {
	var all []addition
	for _, from := range whole {
		all = append(all, addition{raw: from.raw, config: from.config, parent: from.parent, names: from.names})
	}
	stored, err := l.store.addAll(ctx, all)
	for i, each := range stored {
		l.tell(each.id, whole[i], each.taken)
	}
	return err
}

// layer registers one layer; a digest given is verified over what is read.
func (l *loader) layer(ctx context.Context, req layer.RegisterRequest, from blob) error {
	file, size, err := l.archive.open(from.file)
	if err != nil {
		return err
	}
	defer file.Close()
	progress := &progress{from: file, id: shortID(req.Diff.String()), total: size, report: l.report, silent: l.opts.Quiet}
	stream := io.Reader(progress)
	if from.digest != "" {
		stream = &verified{from: stream, verifier: from.digest.Verifier(), digest: from.digest}
	}
	if _, err := l.store.layers.Register(ctx, req, stream); err != nil {
		return fmt.Errorf("loading layer %s: %w", req.Diff, err)
	}
	progress.end()
	failpoint.At("layer-loaded")
	return l.archive.drop(from.file)
}

// tell reports a loaded image as dockerd does.
func (l *loader) tell(id digest.Digest, from source, taken []moved) {
	for _, m := range taken {
		l.stream("The image %s already exists, renaming the old one with ID %s to empty string\n", m.name.familiar(), m.before)
	}
	for _, n := range from.names {
		l.stream("Loaded image: %s\n", n.familiar())
	}
	if len(from.names) == 0 {
		l.stream("Loaded image ID: %s\n", id)
	}
	l.store.publish(apievents.ActionLoad, id.String(), id.String(), from.config.Config.Labels)
}

func (l *loader) stream(format string, args ...any) {
	l.report(jsonstream.Message{Stream: fmt.Sprintf(format, args...)})
}

// images finds the images of an archive: by manifest.json if it has one, since
// that names them; else by the OCI index.
func (a *archive) images(platform *ocispec.Platform) ([]source, error) {
	switch {
	case a.has("manifest.json"):
		return a.dockerImages(platform)
	case a.has("index.json"):
		return a.ociImages(platform)
	case a.has("repositories"):
		return nil, errdefs.InvalidArgument.Errorf("the archive is of the format before Docker 1.10 (it has no manifest.json), which is not supported: save it again with a newer Docker")
	}
	return nil, errdefs.InvalidArgument.Errorf("the archive is neither one of `docker save` (no manifest.json) nor an OCI image layout (no index.json)")
}

// dockerImage is an element of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
	Parent   digest.Digest
}

func (a *archive) dockerImages(platform *ocispec.Platform) ([]source, error) {
	var listed []dockerImage
	if err := a.decode("manifest.json", &listed); err != nil {
		return nil, err
	}
	var sources []source
	for i, image := range listed {
		from := source{parent: image.Parent, tags: image.RepoTags}
		var err error
		if from.raw, err = a.read(image.Config, maxConfig); err != nil {
			return nil, fmt.Errorf("manifest.json[%d].Config: %w", i, err)
		}
		for _, file := range image.Layers {
			from.layers = append(from.layers, blob{file: file})
		}
		if err := from.check(); err != nil {
			return nil, fmt.Errorf("manifest.json[%d]: %w", i, err)
		}
		if platform == nil || suits(*platform, from.config.Platform) {
			sources = append(sources, from)
		}
	}
	if len(sources) == 0 {
		return nil, noPlatform(platform)
	}
	return sources, nil
}

// check parses configuration and tags.
func (from *source) check() (err error) {
	if from.config, err = parseConfig(from.raw); err != nil {
		return err
	}
	if from.parent != "" && from.parent.Validate() != nil {
		return errdefs.InvalidArgument.Errorf("invalid parent %q: expected a digest", from.parent)
	}
	for _, tag := range from.tags {
		parsed, err := reference.ParseNormalizedNamed(tag)
		if err != nil {
			return errdefs.InvalidArgument.Errorf("invalid tag %q: %w", tag, err)
		}
		if _, tagged := parsed.(reference.NamedTagged); !tagged {
			return errdefs.InvalidArgument.Errorf("invalid tag %q", tag)
		}
		n, err := parseTag(tag, "")
		if err != nil {
			return err
		}
		from.names = append(from.names, n)
	}
	return nil
}

func noPlatform(platform *ocispec.Platform) error {
	if platform == nil {
		return errdefs.InvalidArgument.Errorf("the archive holds no image")
	}
	return errdefs.NotFound.Errorf("the archive holds no image for platform %s/%s", platform.OS, platform.Architecture)
}

// suits is true if an image for has can be what wanted asks for: by the rules by
// which an index' entry is chosen. What either leaves open suits.
func suits(wanted, has ocispec.Platform) bool {
	open := func(a, b string) bool { return a == "" || b == "" }
	same := func(a, b string) bool { return open(a, b) || a == b }
	return same(wanted.OS, has.OS) && same(wanted.Architecture, has.Architecture) &&
		(open(wanted.Variant, has.Variant) || registry.Runs(wanted, has))
}

// decode reads a JSON file of the archive.
func (a *archive) decode(file string, into any) error {
	raw, err := a.read(file, maxConfig)
	if err != nil {
		return err
	}
	return decodeJSON(file, raw, into)
}

func decodeJSON(what string, raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return errdefs.InvalidArgument.Errorf("%s: %w", what, err)
	}
	return nil
}

// verified passes a stream on, and turns its end into an error if the digest is
// another.
type verified struct {
	from     io.Reader
	verifier digest.Verifier
	digest   digest.Digest
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.from.Read(p)
	_, _ = v.verifier.Write(p[:n]) // a hash takes everything
	if errors.Is(err, io.EOF) && !v.verifier.Verified() {
		return n, errdefs.InvalidArgument.Errorf("the content of blob %s does not match its digest", v.digest)
	}
	return n, err
}

// progress reports how far a stream was read, every half megabyte.
type progress struct {
	from                io.Reader
	id                  string
	at, total, reported int64
	report              Report
	silent              bool
}

const progressStep = 512 << 10

func (p *progress) Read(buffer []byte) (int, error) {
	n, err := p.from.Read(buffer)
	p.at += int64(n)
	if p.at-p.reported >= progressStep {
		p.say()
	}
	return n, err
}

// end reports the rest: all of it, even if the layer was here and not read.
func (p *progress) end() {
	p.at = p.total
	if p.reported != p.total || p.total == 0 {
		p.say()
	}
}

func (p *progress) say() {
	p.reported = p.at
	if !p.silent {
		p.report(jsonstream.Message{Status: "Loading layer", ID: p.id, Progress: &jsonstream.Progress{Current: p.at, Total: p.total}})
	}
}
