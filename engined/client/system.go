package client

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	units "github.com/docker/go-units"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

func version(ctx context.Context, s *session, f *flags, args []string) error {
	if _, err := f.parse(args, 0, 0); err != nil {
		return err
	}
	found, err := s.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "Client: built-in\n API version: %s\n Go version:  %s\n OS/Arch:     %s/%s\n\nServer: %s\n",
		s.api.ClientVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH, found.Platform.Name)
	for _, component := range found.Components {
		fmt.Fprintf(s.out, " %s:\n  %-14s %s\n", component.Name, "Version:", component.Version)
		for _, name := range sorted(component.Details) {
			fmt.Fprintf(s.out, "  %-14s %s\n", name+":", component.Details[name])
		}
	}
	return nil
}

func sorted(m map[string]string) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func info(ctx context.Context, s *session, f *flags, args []string) error {
	if _, err := f.parse(args, 0, 0); err != nil {
		return err
	}
	found, err := s.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return err
	}
	i := found.Info
	line := func(name string, value any) { fmt.Fprintf(s.out, "%s: %v\n", name, value) }
	line("Containers", i.Containers)
	line(" Running", i.ContainersRunning)
	line(" Paused", i.ContainersPaused)
	line(" Stopped", i.ContainersStopped)
	line("Images", i.Images)
	line("Server Version", i.ServerVersion)
	line("Storage Driver", i.Driver)
	for _, pair := range i.DriverStatus {
		line(" "+pair[0], pair[1])
	}
	line("Logging Driver", i.LoggingDriver)
	line("Cgroup Driver", i.CgroupDriver)
	line("Cgroup Version", i.CgroupVersion)
	line("Default Runtime", i.DefaultRuntime)
	line("Security Options", strings.Join(i.SecurityOptions, " "))
	line("Kernel Version", i.KernelVersion)
	line("Operating System", i.OperatingSystem)
	line("Architecture", i.Architecture)
	line("CPUs", i.NCPU)
	line("Total Memory", units.BytesSize(float64(i.MemTotal)))
	line("Name", i.Name)
	line("ID", i.ID)
	line("Docker Root Dir", i.DockerRootDir)
	line("Labels", strings.Join(i.Labels, " "))
	for _, warning := range i.Warnings {
		fmt.Fprintln(s.err, warning)
	}
	return nil
}

func diskUsage(ctx context.Context, s *session, f *flags, args []string) error {
	if _, err := f.parse(args, 0, 0); err != nil {
		return err
	}
	used, err := s.api.DiskUsage(ctx, client.DiskUsageOptions{Images: true, Containers: true, Volumes: true, BuildCache: true})
	if err != nil {
		return err
	}
	w := table(s.out)
	fmt.Fprintln(w, "TYPE\tTOTAL\tACTIVE\tSIZE\tRECLAIMABLE")
	row := func(kind string, total, active, bytes, reclaimable int64) {
		free := size(reclaimable)
		if bytes > 0 {
			free += fmt.Sprintf(" (%d%%)", reclaimable*100/bytes)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", kind, total, active, size(bytes), free)
	}
	row("Images", used.Images.TotalCount, used.Images.ActiveCount, used.Images.TotalSize, used.Images.Reclaimable)
	row("Containers", used.Containers.TotalCount, used.Containers.ActiveCount, used.Containers.TotalSize, used.Containers.Reclaimable)
	row("Local Volumes", used.Volumes.TotalCount, used.Volumes.ActiveCount, used.Volumes.TotalSize, used.Volumes.Reclaimable)
	row("Build Cache", used.BuildCache.TotalCount, used.BuildCache.ActiveCount, used.BuildCache.TotalSize, used.BuildCache.Reclaimable)
	return w.Flush()
}

func events(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.EventsListOptions
	var filters []string
	f.text(&o.Since, "since", "", "from that `time` on, or duration as 10m")
	f.text(&o.Until, "until", "", "until that `time`")
	f.list(&filters, "filter", "f", "`KEY=VALUE`")
	if _, err := f.parse(args, 0, 0); err != nil {
		return err
	}
	var err error
	if o.Filters, err = filtersOf(filters); err != nil {
		return err
	}
	stream := s.api.Events(ctx, o)
	for {
		select {
		case message := <-stream.Messages:
			printEvent(s.out, message)
		case err := <-stream.Err:
			if err == io.EOF { //nolint:errorlint // the client's own end of stream
				return nil
			}
			return err
		}
	}
}

// printEvent writes a line as docker does: time, type, action, id, attributes.
func printEvent(out io.Writer, m apievents.Message) {
	var attributes []string
	for _, key := range sorted(m.Actor.Attributes) {
		attributes = append(attributes, key+"="+m.Actor.Attributes[key])
	}
	text := ""
	if len(attributes) > 0 {
		text = " (" + strings.Join(attributes, ", ") + ")"
	}
	at := time.Unix(0, m.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00")
	fmt.Fprintf(out, "%s %s %s %s%s\n", at, m.Type, m.Action, m.Actor.ID, text)
}
