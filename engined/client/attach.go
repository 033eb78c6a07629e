package client

import (
	"context"
	"fmt"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

func attach(ctx context.Context, s *session, f *flags, args []string) error {
	var noStdin bool
	var keys string
	f.truth(&noStdin, "no-stdin", "", "do not send standard input")
	f.text(&keys, "detach-keys", "", "keys that detach (default "+defaultDetachKeys+")")
	args, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	found, err := s.api.ContainerInspect(ctx, args[0], client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := found.Container
	if c.State == nil || !c.State.Running {
		return fmt.Errorf("cannot attach to a stopped container, start it first")
	}
	if c.State.Paused {
		return fmt.Errorf("cannot attach to a paused container, unpause it first")
	}
	withInput := !noStdin && c.Config.OpenStdin
	ended := s.api.ContainerWait(ctx, c.ID, client.ContainerWaitOptions{Condition: apicontainer.WaitConditionNotRunning})
	return s.attachTo(ctx, c, withInput, keys, ended)
}

// attachTo follows a container that exists until it ends.
func (s *session) attachTo(ctx context.Context, c apicontainer.InspectResponse, withInput bool, keys string, ended client.ContainerWaitResult) error {
	attached, err := s.api.ContainerAttach(ctx, c.ID, client.ContainerAttachOptions{
		Stream: true, Stdin: withInput, Stdout: true, Stderr: true, DetachKeys: keys,
	})
	if err != nil {
		return err
	}
	defer attached.Close()
	if !c.Config.Tty {
		defer proxySignals(ctx, s.api, c.ID, s.err)()
	}
	return s.follow(ctx, c.ID, &streams{
		conn: attached.HijackedResponse, in: onlyIf(withInput, s.in), out: s.out, err: s.err, tty: c.Config.Tty, detachKeys: keys,
	}, ended)
}
