package image

import (
	"context"

	apiimage "github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/proto/errdefs"
)

// History returns an image's steps, newest first. A step has an id only if the
// image it led to is here.
func (s *Store) History(ctx context.Context, ref string, platforms ...ocispec.Platform) ([]apiimage.HistoryResponseItem, error) {
	found, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if found.damage != nil {
		return nil, found.damage
	}
	if err := found.suits(ref, platforms); err != nil {
		return nil, err
	}
	layers, err := s.layers.Chain(ctx, found.chain)
	if err != nil {
		return nil, err
	}
	items, err := steps(found.config, layers)
	if err != nil {
		return nil, err
	}
	return items, s.addIDs(ctx, found.row, items)
}

// steps lists a configuration's history, newest first, with layers' sizes.
func steps(c *config, layers []layer.Layer) ([]apiimage.HistoryResponseItem, error) {
	items := make([]apiimage.HistoryResponseItem, len(c.History))
	next := 0
	for i, step := range c.History {
		item := apiimage.HistoryResponseItem{ID: "<missing>", CreatedBy: step.CreatedBy, Comment: step.Comment}
		if step.Created != nil {
			item.Created = step.Created.Unix()
		}
		if !step.EmptyLayer {
			if next >= len(layers) {
				return nil, errdefs.DataLoss.Errorf("too many non-empty layers in History section")
			}
			item.Size = layers[next].Size
			next++
		}
		items[len(items)-1-i] = item
	}
	return items, nil
}

// addIDs names the newest step after the image, and those before after its
// parents, as far as they are known.
func (s *Store) addIDs(ctx context.Context, at *row, items []apiimage.HistoryResponseItem) error {
	found, err := s.all(ctx)
	if err != nil {
		return err
	}
	byID := found.byID()
	for i := range items {
		if at == nil {
			return nil
		}
		items[i].ID = at.id.String()
		for _, n := range at.names {
			if !n.isDigest() {
				items[i].Tags = append(items[i].Tags, n.familiar())
			}
		}
		at = byID[at.parent]
	}
	return nil
}
