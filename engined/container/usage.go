package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/engined/engined/engined/layer"
)

// VolumeUsage lists the volumes there are, with their sizes and how many
// containers have them.
func (s *Service) VolumeUsage(ctx context.Context) ([]apivolume.Volume, error) {
	entries, err := os.ReadDir(filepath.Join(s.Root, "volumes"))
	if err != nil {
		return nil, fmt.Errorf("listing volumes: %w", err)
	}
	users := map[string]int64{}
	for _, c := range s.index.all() {
		for _, m := range c.record.Load().Mounts {
			if m.Driver == localDriver {
				users[m.Name]++
			}
		}
	}
	volumes := []apivolume.Volume{}
	for _, entry := range entries {
		if !validVolume.MatchString(entry.Name()) {
			continue // one that is being removed
		}
		v, err := s.usageOf(ctx, entry)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just removed
		}
		if err != nil {
			return nil, err
		}
		v.UsageData.RefCount = users[v.Name]
		volumes = append(volumes, v)
	}
	return volumes, nil
}

func (s *Service) usageOf(ctx context.Context, entry os.DirEntry) (apivolume.Volume, error) {
	data := filepath.Join(s.Root, "volumes", entry.Name(), "_data")
	found, err := os.Stat(data)
	if err != nil {
		return apivolume.Volume{}, err
	}
	size, err := layer.TreeSize(ctx, data)
	if err != nil {
		return apivolume.Volume{}, fmt.Errorf("measuring volume %s: %w", entry.Name(), err)
	}
	return apivolume.Volume{Name: entry.Name(), Driver: localDriver, Mountpoint: data, Scope: "local", CreatedAt: found.ModTime().Format(time.RFC3339),
		Labels: map[string]string{}, Options: map[string]string{}, UsageData: &apivolume.UsageData{Size: size}}, nil
}
