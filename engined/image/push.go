package image

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/distribution/reference"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
)

// PushRequest says what to send.
type PushRequest struct {
	Image string // repository
	Tag   string // "": every tag that the repository has here
	Auth  registry.Auth

	Platforms []ocispec.Platform // not empty: what each image must be for one of
}

// Push sends images to the registry that their name names.
func (s *Store) Push(ctx context.Context, req PushRequest, report Report) error {
	ref, err := pushReference(req.Image, req.Tag)
	if err != nil {
		return err
	}
	names, err := s.pushNames(ctx, ref)
	if err != nil {
		return err
	}
	p := &pusher{store: s, named: reference.TrimNamed(ref), auth: req.Auth, platforms: req.Platforms, report: locked(report)}
	p.say("", fmt.Sprintf("The push refers to repository [%s]", p.named.Name()))
	for _, n := range names {
		if err := p.push(ctx, n); err != nil {
			return err
		}
		s.publish(apievents.ActionPush, n.familiar(), reference.FamiliarName(p.named), nil)
	}
	return nil
}

func pushReference(image, tag string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("invalid reference format: %q: %w", image, err)
	}
	if tag != "" {
		if named, err = reference.WithTag(reference.TrimNamed(named), tag); err != nil {
			return nil, errdefs.InvalidArgument.Errorf("invalid tag %q: %w", tag, err)
		}
	}
	if _, digested := named.(reference.Digested); digested {
		return nil, errdefs.InvalidArgument.Errorf("cannot push a digest reference")
	}
	return named, nil
}

// pushNames are the names that ref means: one, or all tags of the repository.
func (s *Store) pushNames(ctx context.Context, ref reference.Named) (names []name, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		found, err := stringsOf(ctx, tx, `SELECT name FROM image_names WHERE name = ?1 OR name > ?1 || ':' AND name < ?1 || ';' ORDER BY name`, ref.String())
		for _, each := range found {
			n := name(each)
			if !n.isDigest() && n.repository() == ref.Name() && (reference.IsNameOnly(ref) || each == ref.String()) {
				names = append(names, n)
			}
		}
		return err
	})
	if err == nil && len(names) == 0 {
		return nil, errdefs.NotFound.Errorf("An image does not exist locally with the tag: %s", reference.FamiliarName(ref))
	}
	return names, err
}

// pusher is one call of Push.
type pusher struct {
	store  *Store
	named  reference.Named
	auth   registry.Auth
	report Report

	platforms []ocispec.Platform
}

func (p *pusher) say(id, status string) { p.report(jsonstream.Message{ID: id, Status: status}) }

// push sends one image.
func (p *pusher) push(ctx context.Context, n name) error {
	found, err := p.store.find(ctx, string(n))
	if err != nil {
		return err
	}
	if found.damage != nil {
		return found.damage
	}
	if err := found.suits(reference.FamiliarString(n.parse()), p.platforms); err != nil {
		return err
	}
	working := work()
	if err := p.store.db.Update(ctx, func(tx *sql.Tx) error { return p.store.layers.HoldIn(ctx, tx, found.chain, working) }); err != nil {
		return err
	}
	defer p.store.release(ctx, working)
	raw, err := p.store.rawConfig(ctx, found.id)
	if err != nil {
		return err
	}
	to, layers, err := p.prepare(ctx, found.config)
	if err != nil {
		return err
	}
	if err := p.sendAll(ctx, layers); err != nil {
		return err
	}
	failpoint.At("layers-pushed")
	config := ocispec.Descriptor{MediaType: registry.DockerConfig, Digest: found.id, Size: int64(len(raw))}
	if err := sendConfig(ctx, to, config, raw); err != nil {
		return fmt.Errorf("pushing the configuration: %w", err)
	}
	failpoint.At("config-pushed")
	manifest, err := p.manifest(ctx, found.id, config, layers)
	if err != nil {
		return err
	}
	tag := atOf(n.parse())
	if err := to.Put(ctx, tag, manifest); err != nil {
		return err
	}
	failpoint.At("manifest-pushed")
	return p.finish(ctx, found, tag, manifest, layers)
}

func (s *Store) rawConfig(ctx context.Context, id digest.Digest) (raw []byte, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT config FROM images WHERE id = ?`, id.String()).Scan(&raw)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, noSuchImage(id.String())
	}
	return raw, err
}

// prepare looks up what is known of each layer, and opens the repository with
// the rights to mount from where they were seen.
func (p *pusher) prepare(ctx context.Context, of *config) (*registry.Repository, []*layerPush, error) {
	var layers []*layerPush
	var from []string
	for i, diff := range of.RootFS.DiffIDs {
		known, err := p.store.blobsOf(ctx, diff)
		if err != nil {
			return nil, nil, err
		}
		l := &layerPush{pusher: p, diff: diff, chain: chainOf(of.RootFS.DiffIDs[:i+1]), id: shortID(diff.String()), known: known}
		layers = append(layers, l)
		for _, blob := range known {
			if path := p.mountable(blob); path != "" && !slices.Contains(from, path) && len(from) < maxMountSources {
				from = append(from, path)
			}
		}
	}
	to := p.store.Remote.Push(ctx, p.named, p.auth, from)
	for _, l := range layers {
		l.to, l.sources = to, from
		p.say(l.id, "Preparing")
	}
	return to, layers, nil
}

// maxMountSources bounds the rights that a push asks for, and its attempts.
const maxMountSources = 8

// mountable is the path of another repository of the same registry that had the
// blob, or "".
func (p *pusher) mountable(blob seenBlob) string {
	named, err := reference.ParseNormalizedNamed(blob.repository)
	if err != nil || reference.Domain(named) != reference.Domain(p.named) || named.Name() == p.named.Name() {
		return ""
	}
	return reference.Path(named)
}

// sendAll sends the layers side by side; the first failure ends all.
func (p *pusher) sendAll(ctx context.Context, layers []*layerPush) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sending sync.WaitGroup
	byDiff := map[digest.Digest]*layerPush{}
	for _, l := range layers {
		if twin := byDiff[l.diff]; twin != nil {
			l.twin = twin // the same content twice in an image is sent once
			continue
		}
		byDiff[l.diff] = l
		sending.Go(func() {
			if err := l.send(ctx); err != nil {
				cancel(err)
			}
		})
	}
	sending.Wait()
	for _, l := range layers {
		if l.twin != nil {
			l.sent = l.twin.sent
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// manifest is the one that was pulled, if it says what was sent now; else a new
// one in Docker's format, as dockerd writes it.
func (p *pusher) manifest(ctx context.Context, id digest.Digest, config ocispec.Descriptor, layers []*layerPush) (registry.Manifest, error) {
	known, err := p.store.manifestsOf(ctx, id)
	if err != nil {
		return registry.Manifest{}, err
	}
	for _, m := range known {
		if describes(m, layers) {
			return m, nil
		}
	}
	made := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: registry.DockerManifest, Config: config, Layers: []ocispec.Descriptor{}}
	for _, l := range layers {
		made.Layers = append(made.Layers, ocispec.Descriptor{MediaType: dockerType(l.sent.MediaType), Digest: l.sent.Digest, Size: l.sent.Size})
	}
	raw, err := json.MarshalIndent(made, "", "   ")
	if err != nil {
		return registry.Manifest{}, fmt.Errorf("encoding the manifest: %w", err)
	}
	return registry.Manifest{Raw: raw, Descriptor: ocispec.Descriptor{MediaType: made.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}}, nil
}

// dockerType is a layer's media type in Docker's manifests. It has none of its
// own for zstd; then the specification's is understood by those who know zstd.
func dockerType(mediaType string) string {
	switch mediaType {
	case ocispec.MediaTypeImageLayer:
		return registry.DockerLayer
	case ocispec.MediaTypeImageLayerGzip, "":
		return registry.DockerLayerGzip
	}
	return mediaType
}

// describes is true if the manifest has just these blobs.
func describes(m registry.Manifest, layers []*layerPush) bool {
	var has ocispec.Manifest
	if json.Unmarshal(m.Raw, &has) != nil || len(has.Layers) != len(layers) {
		return false
	}
	for i, l := range layers {
		if has.Layers[i].Digest != l.sent.Digest || has.Layers[i].Size != l.sent.Size {
			return false
		}
	}
	return true
}

// finish records what the registry has now, and says so.
func (p *pusher) finish(ctx context.Context, found match, tag string, manifest registry.Manifest, layers []*layerPush) error {
	canonical, err := reference.WithDigest(p.named, manifest.Descriptor.Digest)
	if err != nil {
		return err
	}
	var diffs []digest.Digest
	var blobs []ocispec.Descriptor
	levels := map[digest.Digest]int{}
	for _, l := range layers {
		levels[l.sent.Digest] = l.level()
		diffs, blobs = append(diffs, l.diff), append(blobs, l.sent)
	}
	err = p.store.db.Update(ctx, func(tx *sql.Tx) error {
		if err := mustExist(ctx, tx, found.id); err != nil {
			return err
		}
		_, err := setName(ctx, tx, name(canonical.String()), found.id)
		return errors.Join(err, rememberManifest(ctx, tx, found.id, manifest), rememberBlobs(ctx, tx, p.named.Name(), diffs, blobs, levels))
	})
	if err != nil {
		return fmt.Errorf("recording what was pushed: %w", err)
	}
	failpoint.At("push-recorded")
	p.say("", fmt.Sprintf("%s: digest: %s size: %d", tag, manifest.Descriptor.Digest, manifest.Descriptor.Size))
	aux, err := json.Marshal(map[string]any{"Tag": tag, "Digest": manifest.Descriptor.Digest, "Size": manifest.Descriptor.Size})
	if err != nil {
		return err
	}
	p.report(jsonstream.Message{Aux: (*json.RawMessage)(&aux)})
	return nil
}
