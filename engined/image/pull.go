package image

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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

// PullRequest says what to get.
type PullRequest struct {
	Image    string // repository, with tag or digest or without
	Tag      string // a tag or a digest; "" with an Image that has neither: every tag
	Platform *ocispec.Platform
	Auth     registry.Auth
}

// Pull gets an image from a registry, or all of a repository.
func (s *Store) Pull(ctx context.Context, req PullRequest, report Report) error {
	ref, err := pullReference(req.Image, req.Tag)
	if err != nil {
		return err
	}
	if reference.FamiliarName(ref) == "scratch" { // Dockerfiles' word for no image at all
		return errdefs.PermissionDenied.Errorf("'scratch' is a reserved name")
	}
	p := &puller{store: s, from: s.Remote.Pull(ctx, ref, req.Auth), named: reference.TrimNamed(ref), platform: req.Platform, report: locked(report), levels: map[digest.Digest]int{}, unpacked: map[pairing]bool{}}
	refs := []reference.Named{ref}
	if reference.IsNameOnly(ref) {
		if refs, err = p.all(ctx); err != nil {
			return err
		}
	}
	newer := false
	for _, each := range refs {
		changed, err := p.pullFromAny(ctx, each)
		if err != nil {
			return err
		}
		newer = newer || changed
		s.publish(apievents.ActionPull, reference.FamiliarString(each), reference.FamiliarName(each), nil)
	}
	if newer {
		p.say("", "Status: Downloaded newer image for "+reference.FamiliarString(ref))
	} else {
		p.say("", "Status: Image is up to date for "+reference.FamiliarString(ref))
	}
	return nil
}

// pullReference reads the two parameters as dockerd does: the second wins.
func pullReference(image, tag string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("invalid reference format: %q: %w", image, err)
	}
	if tag != "" {
		if d, notDigest := digest.Parse(tag); notDigest == nil {
			named, err = reference.WithDigest(reference.TrimNamed(named), d)
		} else {
			named, err = reference.WithTag(reference.TrimNamed(named), tag)
		}
		if err != nil {
			return nil, errdefs.InvalidArgument.Errorf("invalid reference format: %q: %w", tag, err)
		}
	}
	if digested, is := named.(reference.Digested); is { // the digest is more exact than a tag beside it
		return reference.WithDigest(reference.TrimNamed(named), digested.Digest())
	}
	return named, nil
}

// locked lets one goroutine report at a time.
func locked(report Report) Report {
	var mu sync.Mutex // guards the stream that report writes
	return func(message jsonstream.Message) {
		mu.Lock()
		defer mu.Unlock()
		report(message)
	}
}

// puller is one call of Pull.
type puller struct {
	store    *Store
	from     *registry.Repository
	named    reference.Named
	platform *ocispec.Platform
	report   Report
	levels   map[digest.Digest]int // of gzip, by blob
	unpacked map[pairing]bool      // what this call has read itself
}

func (p *puller) say(id, status string) { p.report(jsonstream.Message{ID: id, Status: status}) }

// all are the repository's tags.
func (p *puller) all(ctx context.Context) ([]reference.Named, error) {
	tags, err := p.from.Tags(ctx)
	if err != nil {
		return nil, err
	}
	var refs []reference.Named
	for _, tag := range tags {
		ref, err := reference.WithTag(p.named, tag)
		if err != nil {
			return nil, errdefs.InvalidArgument.Errorf("the registry lists the tag %q: %w", tag, err)
		}
		refs = append(refs, ref)
	}
	if len(refs) == 0 {
		return nil, errdefs.NotFound.Errorf("repository %s has no tags", reference.FamiliarName(p.named))
	}
	return refs, nil
}

// pullFromAny is pull that goes on without a mirror that has other content than
// it should, or stops sending. What has arrived is not fetched again.
func (p *puller) pullFromAny(ctx context.Context, ref reference.Named) (changed bool, err error) {
	changed, err = p.pull(ctx, ref)
	for err != nil && ctx.Err() == nil && !isFull(err) && p.from.GiveUpMirror() {
		changed, err = p.pull(ctx, ref)
	}
	return changed, err
}

// pull gets one image and says whether its name means another one now.
func (p *puller) pull(ctx context.Context, ref reference.Named) (changed bool, err error) {
	at := atOf(ref)
	found, err := p.from.Resolve(ctx, at, p.platform)
	if err != nil {
		return false, err
	}
	p.say(at, "Pulling from "+reference.Path(p.named))
	raw, err := p.from.Small(ctx, found.Config, maxConfig)
	if err != nil {
		return false, err
	}
	config, err := p.check(ref, raw, found)
	if err != nil {
		return false, err
	}
	failpoint.At("config-pulled")
	working := work()
	defer p.store.release(ctx, working)
	pulls, err := p.layers(ctx, working, config, found)
	defer func() {
		for _, l := range pulls {
			l.end(err == nil || isFull(err))
		}
	}()
	if err != nil {
		return false, err
	}
	for _, l := range pulls {
		if level, is := levelOf(l.start); is {
			p.levels[l.of.Digest] = level
		}
		if l.verified {
			p.unpacked[pairing{l.diff, l.of.Digest}] = true
		}
	}
	p.say("", "Digest: "+found.Top.Descriptor.Digest.String())
	return p.keep(ctx, ref, raw, config, found)
}

// atOf is a reference's digest or tag.
func atOf(ref reference.Named) string {
	switch is := ref.(type) {
	case reference.Digested:
		return is.Digest().String()
	case reference.Tagged:
		return is.Tag()
	}
	return "latest"
}

// check parses the configuration and compares it with the manifest.
func (p *puller) check(ref reference.Named, raw []byte, found registry.Resolved) (*config, error) {
	parsed, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	if have, want := len(found.Layers), len(parsed.RootFS.DiffIDs); have != want {
		return nil, errdefs.InvalidArgument.Errorf("invalid manifest, layers length mismatch: expected %d, got %d", want, have)
	}
	if parsed.OS != "" && parsed.OS != "linux" {
		return nil, errdefs.InvalidArgument.Errorf("cannot pull %s image on linux", parsed.OS)
	}
	if w := p.platform; w != nil && !suits(*w, parsed.Platform) {
		return nil, errdefs.NotFound.Errorf("image with reference %s was found but does not match the specified platform: wanted %s, actual: %s",
			reference.FamiliarString(ref), platformText(*w), platformText(parsed.Platform))
	}
	return parsed, nil
}

// keep stores the image with its names, and what a push may want to know.
func (p *puller) keep(ctx context.Context, ref reference.Named, raw []byte, parsed *config, found registry.Resolved) (changed bool, err error) {
	canonical, err := reference.WithDigest(p.named, found.Top.Descriptor.Digest)
	if err != nil {
		return false, errdefs.InvalidArgument.Errorf("digest %q: %w", found.Top.Descriptor.Digest, err)
	}
	id := digest.FromBytes(raw)
	before, err := p.store.named(ctx, name(ref.String()), name(canonical.String()))
	if err != nil {
		return false, err
	}
	changed = before[0] != id
	names := []name{name(ref.String())}
	if !changed {
		names = nil
	}
	if before[1] != id && canonical.String() != ref.String() {
		names = append(names, name(canonical.String()))
	}
	_, err = p.store.add(ctx, addition{raw: raw, config: parsed, names: names, more: func(tx *sql.Tx, id digest.Digest) error {
		diffs, blobs, err := provenBlobs(ctx, tx, parsed.RootFS.DiffIDs, found.Layers, p.unpacked)
		return errors.Join(err, rememberManifest(ctx, tx, id, found.Manifest),
			rememberBlobs(ctx, tx, p.named.Name(), diffs, blobs, p.levels))
	}})
	return changed, err
}

// named returns the images that names mean, "" for none.
func (s *Store) named(ctx context.Context, names ...name) (ids []digest.Digest, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		ids = nil
		for _, n := range names {
			found, err := stringsOf(ctx, tx, `SELECT image FROM image_names WHERE name = ?`, string(n))
			if err != nil {
				return fmt.Errorf("looking up %s: %w", n, err)
			}
			ids = append(ids, "")
			if len(found) > 0 {
				ids[len(ids)-1] = digest.Digest(found[0])
			}
		}
		return nil
	})
	return ids, err
}

// unpackers is how many layers of one image are unpacked at the same time.
const unpackers = 3

// layers makes sure that every layer is here and held for working. Those that
// are missing arrive side by side and are unpacked side by side, as far as the
// driver can do that; each is registered after the one below it. The caller ends
// what is returned, also with an error.
func (p *puller) layers(ctx context.Context, working string, parsed *config, found registry.Resolved) (pulls []*layerPull, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer func() { cancel(err) }()
	count, err := p.present(ctx, working, parsed, found)
	if err != nil {
		return nil, err
	}
	diffs := parsed.RootFS.DiffIDs
	for i := count; i < len(diffs); i++ {
		l, err := p.fetch(ctx, diffs[i], found.Layers[i])
		if err != nil {
			return pulls, err
		}
		pulls = append(pulls, l)
		parts.Go(func() { l.watch(ctx, cancel) })
	}
	turns := make(chan struct{}, unpackers)
	var below <-chan struct{}
	for i, l := range pulls {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return pulls, context.Cause(ctx) // of several failures the first
		}
		after, parent := below, chainOf(diffs[:count+i])
		parts.Go(func() {
			defer func() { <-turns }()
			l.register(ctx, layer.RegisterRequest{Parent: parent, Diff: l.diff, Owner: working, After: after}, cancel)
		})
		below = l.registered
	}
	if len(pulls) > 0 {
		select {
		case <-below:
		case <-ctx.Done():
			return pulls, context.Cause(ctx)
		}
	}
	return pulls, nil
}

// errMissing is what a layer's content is while we hope that it is not needed.
var errMissing = errors.New("not fetched")

type unfetched struct{}

func (unfetched) Read([]byte) (int, error) { return 0, errMissing }

// present holds the layers that are here, from the bottom up, and returns how
// many they are. An image that is whole needs no lines for its layers.
func (p *puller) present(ctx context.Context, working string, parsed *config, found registry.Resolved) (count int, err error) {
	_, unknown := p.store.Resolve(ctx, found.Config.Digest.String())
	parent := digest.Digest("")
	for i, diff := range parsed.RootFS.DiffIDs {
		here, err := p.store.layers.Get(ctx, chainOf(parsed.RootFS.DiffIDs[:i+1]))
		if errdefs.KindOf(err) == errdefs.NotFound || err == nil && here.Damaged != "" {
			return i, nil
		}
		if err != nil {
			return i, err
		}
		_, err = p.store.layers.Register(ctx, layer.RegisterRequest{Parent: parent, Diff: diff, Owner: working}, unfetched{})
		if errors.Is(err, errMissing) {
			return i, nil // it went just now
		}
		if err != nil {
			return i, err
		}
		parent = here.Chain
		if unknown != nil {
			p.say(shortID(found.Layers[i].Digest.Encoded()), "Already exists")
		}
	}
	return len(parsed.RootFS.DiffIDs), nil
}
