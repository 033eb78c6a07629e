package container

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/proto/errdefs"
)

// List lists containers, the newest first. It waits for nobody, unless sizes are
// asked for.
func (s *Service) List(ctx context.Context, options ListOptions) ([]apicontainer.Summary, error) {
	filter, err := s.newFilter(ctx, options.Filters)
	if err != nil {
		return nil, err
	}
	all := options.All || options.Limit > 0 || filter.wantsStopped()
	var wanted []*Record
	for _, c := range s.index.all() {
		if options.Limit > 0 && len(wanted) == options.Limit {
			break
		}
		if r := c.record.Load(); (all || r.up()) && filter.matches(r) {
			wanted = append(wanted, r)
		}
	}
	return s.summaries(ctx, wanted, options.Size)
}

func (s *Service) summaries(ctx context.Context, records []*Record, sized bool) ([]apicontainer.Summary, error) {
	var refs []string
	for _, r := range records {
		refs = append(refs, r.Config.Image)
	}
	slices.Sort(refs)
	means, err := s.Images.Means(ctx, slices.Compact(refs))
	if err != nil {
		return nil, err
	}
	list := make([]apicontainer.Summary, len(records))
	for i, r := range records {
		list[i] = summary(r)
		if means[r.Config.Image] != r.Image { // as in dockerd, a name that means another one now is not shown
			list[i].Image = r.Image.String()
		}
		if !sized {
			continue
		}
		if list[i].SizeRw, list[i].SizeRootFs, err = s.sizes(ctx, r); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func summary(r *Record) apicontainer.Summary {
	line := apicontainer.Summary{
		ID:              r.ID,
		Names:           []string{"/" + r.Name},
		Image:           r.Config.Image,
		ImageID:         r.Image.String(),
		Command:         commandLine(r),
		Created:         r.Created.Unix(),
		Ports:           portSummaries(r),
		Labels:          orEmpty(r.Config.Labels),
		State:           r.Phase(),
		Status:          status(r, time.Now()),
		Health:          &apicontainer.HealthSummary{Status: apicontainer.NoHealthcheck},
		NetworkSettings: &apicontainer.NetworkSettingsSummary{Networks: r.networks()},
		Mounts:          mountPoints(r),
	}
	line.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	line.HostConfig.Annotations = r.HostConfig.Annotations
	return line
}

func orEmpty(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}

// commandLine is the command as ps shows it, quoted where it has to be.
func commandLine(r *Record) string {
	words := []string{r.Path}
	for _, arg := range r.Args {
		if strings.ContainsAny(arg, " \t\n'\"") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

func portSummaries(r *Record) []apicontainer.PortSummary {
	ports := []apicontainer.PortSummary{}
	if !r.up() {
		return ports
	}
	for port := range r.Config.ExposedPorts {
		ports = append(ports, apicontainer.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
	}
	slices.SortFunc(ports, func(a, b apicontainer.PortSummary) int {
		if a.PrivatePort != b.PrivatePort {
			return int(a.PrivatePort) - int(b.PrivatePort)
		}
		return strings.Compare(a.Type, b.Type)
	})
	return ports
}

func mountPoints(r *Record) []apicontainer.MountPoint {
	points := []apicontainer.MountPoint{}
	for _, m := range r.Mounts {
		points = append(points, m.MountPoint)
	}
	return points
}

// status is ps's words for how a container is doing.
func status(r *Record, now time.Time) string {
	since := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch r.Phase() {
	case created:
		return "Created"
	case running:
		return "Up " + since(r.Run.Started)
	case paused:
		return "Up " + since(r.Run.Started) + " (Paused)"
	case restarting:
		return "Restarting (" + strconv.Itoa(r.exitCode()) + ") " + since(r.Run.Exit.Time) + " ago"
	case exited:
		return fmt.Sprintf("Exited (%d) %s ago", r.exitCode(), since(r.Run.Exit.Time))
	case removing:
		return "Removal In Progress"
	}
	return "Dead"
}

// sizes are that of the writable layer and that with the image, as far as it is
// there: one removed by force, or damaged, hides no container from a list.
func (s *Service) sizes(ctx context.Context, r *Record) (own, whole int64, err error) {
	own, err = s.Layers.Size(ctx, r.ID)
	if err != nil && !unknowable(err) {
		return 0, 0, err
	}
	image, err := s.Images.Resolve(ctx, r.Image.String())
	if err != nil && !unknowable(err) {
		return 0, 0, err
	}
	return own, own + image.Size, nil
}

// unknowable is true if what is asked for is not there any more.
func unknowable(err error) bool {
	kind := errdefs.KindOf(err)
	return kind == errdefs.NotFound || kind == errdefs.DataLoss
}
