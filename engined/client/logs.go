package client

import (
	"context"
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

func logs(ctx context.Context, s *session, f *flags, args []string) error {
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}
	f.truth(&o.Follow, "follow", "f", "go on until it ends")
	f.truth(&o.Timestamps, "timestamps", "t", "show the time of each line")
	f.truth(&o.Details, "details", "", "show labels")
	f.text(&o.Tail, "tail", "n", "`number` of lines from the end")
	f.text(&o.Since, "since", "", "from that `time` on, or duration as 10m")
	f.text(&o.Until, "until", "", "until that `time`")
	args, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	found, err := s.api.ContainerInspect(ctx, args[0], client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	stream, err := s.api.ContainerLogs(ctx, found.Container.ID, o)
	if err != nil {
		return err
	}
	defer stream.Close()
	if found.Container.Config.Tty {
		_, err = io.Copy(s.out, stream)
	} else {
		_, err = stdcopy.StdCopy(s.out, s.err, stream)
	}
	return err
}
