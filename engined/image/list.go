package image

import (
	"context"
	"database/sql"
	"slices"
	"time"

	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/layer"
)

// ListOptions select images.
type ListOptions struct {
	All        bool // also nameless ones that others were built on
	SharedSize bool // compute SharedSize, which is -1 otherwise
	Containers bool // count the containers of each, -1 otherwise
	Filters    Filters
}

// damagedLabel marks images that cannot be used; its value is the reason.
const damagedLabel = "engined.damaged"

// List returns images, newest first.
func (s *Store) List(ctx context.Context, opts ListOptions) ([]apiimage.Summary, error) {
	if err := opts.Filters.only("dangling", "label", "label!", "before", "since", "reference", "until"); err != nil {
		return nil, err
	}
	selected, err := s.selection(ctx, opts)
	if err != nil {
		return nil, err
	}
	found, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	summaries := []apiimage.Summary{}
	for _, r := range found.rows {
		names, wanted, err := selected.names(r, found.parents[r.id])
		if err != nil {
			return nil, err
		}
		if wanted {
			summaries = append(summaries, r.summary(names))
		}
	}
	if opts.SharedSize {
		err = s.addSharedSizes(ctx, found.rows, summaries)
	}
	if opts.Containers && err == nil {
		err = s.addContainers(ctx, summaries)
	}
	return summaries, err
}

// addContainers sets how many containers use each image.
func (s *Store) addContainers(ctx context.Context, summaries []apiimage.Summary) error {
	users := map[string]int64{}
	err := s.db.View(ctx, func(tx *sql.Tx) error {
		held, err := stringsOf(ctx, tx, `SELECT image FROM image_holds WHERE owner LIKE 'container/%'`)
		for _, id := range held {
			users[id]++
		}
		return err
	})
	for i := range summaries {
		summaries[i].Containers = users[summaries[i].ID]
	}
	return err
}

// LayersSize is what the layers of all images take together, each counted once.
func (s *Store) LayersSize(ctx context.Context) (total int64, err error) {
	layers, err := s.layers.All(ctx)
	if err != nil {
		return 0, err
	}
	found, err := s.all(ctx)
	if err != nil {
		return 0, err
	}
	counted := map[digest.Digest]bool{}
	for _, r := range found.rows {
		eachLayer(layers, r.chain, func(l layer.Layer) {
			if !counted[l.Chain] {
				counted[l.Chain] = true
				total += l.Size
			}
		})
	}
	return total, nil
}

// selection is ListOptions with their references looked up.
type selection struct {
	ListOptions
	dangling      *bool
	before, since time.Time // zero: no such filter
}

func (s *Store) selection(ctx context.Context, opts ListOptions) (*selection, error) {
	sel := &selection{ListOptions: opts}
	if len(opts.Filters["dangling"]) > 0 {
		dangling, err := opts.Filters.flag("dangling", false)
		if err != nil {
			return nil, err
		}
		sel.dangling = &dangling
	}
	var err error
	if sel.before, err = opts.Filters.until(time.Now()); err != nil {
		return nil, err
	}
	for _, ref := range opts.Filters["before"] {
		image, err := s.Resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		if sel.before.IsZero() || image.Created.Before(sel.before) {
			sel.before = image.Created
		}
	}
	for _, ref := range opts.Filters["since"] {
		image, err := s.Resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		if image.Created.After(sel.since) {
			sel.since = image.Created
		}
	}
	return sel, nil
}

// names says whether an image is wanted, and which of its names are shown.
func (sel *selection) names(r *row, isParent bool) (names []name, wanted bool, err error) {
	created := r.created()
	if !sel.before.IsZero() && !created.Before(sel.before) || !sel.since.IsZero() && !created.After(sel.since) {
		return nil, false, nil
	}
	if !sel.Filters.labels(r.labels()) {
		return nil, false, nil
	}
	if names, err = sel.Filters.named(r.names); err != nil {
		return nil, false, err
	}
	if len(names) == 0 {
		hidden := isParent && !sel.All || sel.dangling != nil && !*sel.dangling || len(sel.Filters["reference"]) > 0
		return nil, !hidden, nil
	}
	return names, sel.dangling == nil || !*sel.dangling || !hasTag(names), nil
}

func hasTag(names []name) bool {
	for _, n := range names {
		if !n.isDigest() {
			return true
		}
	}
	return false
}

func (r *row) created() time.Time {
	if r.config == nil {
		return time.Time{}
	}
	return r.config.created()
}

func (r *row) summary(names []name) apiimage.Summary {
	tags, digests := slices.Clone(r.tags), slices.Clone(r.digests)
	if len(names) < len(r.names) {
		tags, digests = familiar(names)
	}
	summary := apiimage.Summary{
		ID: r.id.String(), ParentID: r.parent.String(), RepoTags: tags, RepoDigests: digests,
		Size: r.size, SharedSize: -1, Containers: -1, Labels: r.labels(),
	}
	if created := r.created(); !created.IsZero() {
		summary.Created = created.Unix()
	}
	if r.damage != nil {
		summary.Labels = map[string]string{damagedLabel: r.damage.Error()}
		for key, value := range r.labels() {
			summary.Labels[key] = value
		}
	}
	return summary
}

// familiar sorts names into Docker's two lists; neither is nil.
func familiar(names []name) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, n := range names {
		if n.isDigest() {
			digests = append(digests, n.familiar())
		} else {
			tags = append(tags, n.familiar())
		}
	}
	return tags, digests
}

// addSharedSizes sets the bytes of each image's layers that another image has,
// too.
func (s *Store) addSharedSizes(ctx context.Context, rows []*row, summaries []apiimage.Summary) error {
	layers, err := s.layers.All(ctx)
	if err != nil {
		return err
	}
	uses := map[digest.Digest]int{}
	tops := map[string]digest.Digest{}
	for _, r := range rows {
		tops[r.id.String()] = r.chain
		eachLayer(layers, r.chain, func(l layer.Layer) { uses[l.Chain]++ })
	}
	for i := range summaries {
		summaries[i].SharedSize = 0
		eachLayer(layers, tops[summaries[i].ID], func(l layer.Layer) {
			if uses[l.Chain] > 1 {
				summaries[i].SharedSize += l.Size
			}
		})
	}
	return nil
}

// eachLayer calls do with every layer of a chain that is there, top first.
func eachLayer(layers map[digest.Digest]layer.Layer, top digest.Digest, do func(layer.Layer)) {
	for l, found := layers[top]; found; l, found = layers[l.Parent] {
		do(l)
	}
}

// Count returns how many images there are.
func (s *Store) Count(ctx context.Context) (int, error) {
	found, err := s.all(ctx)
	if err != nil {
		return 0, err
	}
	return len(found.rows), nil
}
