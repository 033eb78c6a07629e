package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// What changes a container's state, one function per command.

func start(ctx context.Context, s *session, f *flags, args []string) error {
	var attached, interactive bool
	f.truth(&attached, "attach", "a", "attach to it")
	f.truth(&interactive, "interactive", "i", "attach standard input too")
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	if attached || interactive {
		if len(args) > 1 {
			return errors.New("you cannot start and attach multiple containers at once")
		}
		return s.startAttached(ctx, args[0], interactive)
	}
	return s.each(args, func(ref string) error {
		_, err := s.api.ContainerStart(ctx, ref, client.ContainerStartOptions{})
		return err
	})
}

func (s *session) startAttached(ctx context.Context, ref string, interactive bool) error {
	found, err := s.api.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := found.Container
	o := runOptions{}
	o.tty, o.interactive = c.Config.Tty, interactive && c.Config.OpenStdin
	o.autoRemove = c.HostConfig != nil && c.HostConfig.AutoRemove
	return s.runAttached(ctx, c.ID, &o)
}

// timeoutFlag defines --time, in seconds; nil if it was not given.
func timeoutFlag(f *flags) **int {
	var timeout *int
	set := func(given string) error {
		seconds, err := strconv.Atoi(given)
		timeout = &seconds
		return err
	}
	for _, name := range []string{"time", "timeout", "t"} {
		f.set.Func(name, "`seconds` before it is killed, -1: never", set)
	}
	return &timeout
}

func stop(ctx context.Context, s *session, f *flags, args []string) error {
	var signal string
	timeout := timeoutFlag(f)
	f.text(&signal, "signal", "s", "`signal` to send")
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	return s.each(args, func(ref string) error {
		_, err := s.api.ContainerStop(ctx, ref, client.ContainerStopOptions{Signal: signal, Timeout: *timeout})
		return err
	})
}

func restart(ctx context.Context, s *session, f *flags, args []string) error {
	var signal string
	timeout := timeoutFlag(f)
	f.text(&signal, "signal", "s", "`signal` to send")
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	return s.each(args, func(ref string) error {
		_, err := s.api.ContainerRestart(ctx, ref, client.ContainerRestartOptions{Signal: signal, Timeout: *timeout})
		return err
	})
}

func kill(ctx context.Context, s *session, f *flags, args []string) error {
	signal := "KILL"
	f.text(&signal, "signal", "s", "`signal` to send")
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	return s.each(args, func(ref string) error {
		_, err := s.api.ContainerKill(ctx, ref, client.ContainerKillOptions{Signal: signal})
		return err
	})
}

func pause(ctx context.Context, s *session, f *flags, args []string) error {
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	return s.each(args, func(ref string) error {
		_, err := s.api.ContainerPause(ctx, ref, client.ContainerPauseOptions{})
		return err
	})
}

func unpause(ctx context.Context, s *session, f *flags, args []string) error {
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	return s.each(args, func(ref string) error {
		_, err := s.api.ContainerUnpause(ctx, ref, client.ContainerUnpauseOptions{})
		return err
	})
}

func rename(ctx context.Context, s *session, f *flags, args []string) error {
	args, err := f.parse(args, 2, 2)
	if err != nil {
		return err
	}
	_, err = s.api.ContainerRename(ctx, args[0], client.ContainerRenameOptions{NewName: args[1]})
	return err
}

func remove(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.ContainerRemoveOptions
	f.truth(&o.Force, "force", "f", "kill it if it runs")
	f.truth(&o.RemoveVolumes, "volumes", "v", "remove its anonymous volumes too")
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	return s.each(args, func(ref string) error {
		_, err := s.api.ContainerRemove(ctx, strings.TrimPrefix(ref, "/"), o)
		return err
	})
}

func wait(ctx context.Context, s *session, f *flags, args []string) error {
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	failed := false
	for _, ref := range args {
		ended := s.api.ContainerWait(ctx, ref, client.ContainerWaitOptions{Condition: apicontainer.WaitConditionNotRunning})
		select {
		case result := <-ended.Result:
			fmt.Fprintln(s.out, result.StatusCode)
		case err := <-ended.Error:
			fmt.Fprintf(s.err, "engined: %v\n", err)
			failed = true
		}
	}
	if failed {
		return exit(1)
	}
	return nil
}
