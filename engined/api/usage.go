package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/moby/moby/api/types/build"
	apicontainer "github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	apisystem "github.com/moby/moby/api/types/system"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/proto/errdefs"
)

// usage is what takes space, of the kinds that were asked for; nil for others.
type usage struct {
	layers     int64
	images     []apiimage.Summary
	containers []apicontainer.Summary
	volumes    []apivolume.Volume
	build      []build.CacheRecord // this engine keeps none
}

// legacyUsage is the answer of before 1.52.
type legacyUsage struct {
	LayersSize  int64
	Images      []legacySummary
	Containers  []apicontainer.Summary
	Volumes     []apivolume.Volume
	BuildCache  []build.CacheRecord
	BuilderSize *int64 `json:",omitempty"` // until 1.41
}

var usageKinds = []apisystem.DiskUsageObject{apisystem.ContainerObject, apisystem.ImageObject, apisystem.VolumeObject, apisystem.BuildCacheObject}

func (s *Server) usage(w http.ResponseWriter, r *http.Request) error {
	q, version := queryOf(r), versionOf(r)
	verbose := q.flag("verbose")
	if q.err != nil {
		return q.err
	}
	kinds := usageKinds
	if asked := q.values["type"]; len(asked) > 0 && !version.Before(42) {
		kinds = nil
		for _, kind := range asked {
			if !slices.Contains(usageKinds, apisystem.DiskUsageObject(kind)) {
				return errdefs.InvalidArgument.Errorf("unknown object type: %s", kind)
			}
			kinds = append(kinds, apisystem.DiskUsageObject(kind))
		}
	}
	found, err := s.measure(r.Context(), kinds)
	if err != nil {
		return err
	}
	if version.Before(52) {
		return writeJSON(w, http.StatusOK, found.legacy(version))
	}
	return writeJSON(w, http.StatusOK, found.summed(verbose))
}

func (s *Server) measure(ctx context.Context, kinds []apisystem.DiskUsageObject) (found usage, err error) {
	for _, kind := range kinds {
		switch kind {
		case apisystem.ImageObject:
			if found.images, err = s.Images.List(ctx, image.ListOptions{SharedSize: true, Containers: true}); err == nil {
				found.layers, err = s.Images.LayersSize(ctx)
			}
		case apisystem.ContainerObject:
			found.containers, err = s.Containers.List(ctx, container.ListOptions{All: true, Size: true})
		case apisystem.VolumeObject:
			found.volumes, err = s.Containers.VolumeUsage(ctx)
		case apisystem.BuildCacheObject:
			found.build = []build.CacheRecord{}
		}
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

func (u *usage) legacy(version Version) legacyUsage {
	answer := legacyUsage{LayersSize: u.layers, Containers: u.containers, Volumes: u.volumes, BuildCache: u.build}
	if version.Before(42) {
		answer.BuilderSize = new(int64)
	}
	if u.images != nil {
		answer.Images = []legacySummary{}
	}
	for _, i := range u.images {
		answer.Images = append(answer.Images, legacySummary{i, i.Size})
	}
	return answer
}

// summed is the answer since 1.52: sums, and with verbose what they are of.
func (u *usage) summed(verbose bool) apisystem.DiskUsage {
	var answer apisystem.DiskUsage
	if u.images != nil {
		answer.ImageUsage = u.ofImages()
	}
	if u.containers != nil {
		answer.ContainerUsage = u.ofContainers()
	}
	if u.volumes != nil {
		answer.VolumeUsage = u.ofVolumes()
	}
	if u.build != nil {
		answer.BuildCacheUsage = &build.DiskUsage{}
	}
	if !verbose {
		return answer
	}
	if answer.ImageUsage != nil {
		answer.ImageUsage.Items = u.images
	}
	if answer.ContainerUsage != nil {
		answer.ContainerUsage.Items = u.containers
	}
	if answer.VolumeUsage != nil {
		answer.VolumeUsage.Items = u.volumes
	}
	return answer
}

// ofImages: what no image in use has for itself could be given back.
func (u *usage) ofImages() *apiimage.DiskUsage {
	sum := &apiimage.DiskUsage{TotalCount: int64(len(u.images)), TotalSize: u.layers, Reclaimable: u.layers}
	for _, i := range u.images {
		if i.Containers > 0 {
			sum.ActiveCount++
			sum.Reclaimable -= i.Size - i.SharedSize
		}
	}
	return sum
}

func (u *usage) ofContainers() *apicontainer.DiskUsage {
	sum := &apicontainer.DiskUsage{TotalCount: int64(len(u.containers))}
	for _, c := range u.containers {
		sum.TotalSize += c.SizeRw
		switch c.State {
		case apicontainer.StateRunning, apicontainer.StatePaused, apicontainer.StateRestarting:
			sum.ActiveCount++
		default:
			sum.Reclaimable += c.SizeRw
		}
	}
	return sum
}

func (u *usage) ofVolumes() *apivolume.DiskUsage {
	sum := &apivolume.DiskUsage{TotalCount: int64(len(u.volumes))}
	for _, v := range u.volumes {
		sum.TotalSize += v.UsageData.Size
		if v.UsageData.RefCount > 0 {
			sum.ActiveCount++
		} else {
			sum.Reclaimable += v.UsageData.Size
		}
	}
	return sum
}
