package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/client"
)

func execute(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.ExecCreateOptions
	var detach, interactive bool
	f.truth(&detach, "detach", "d", "do not wait for it")
	f.truth(&interactive, "interactive", "i", "keep standard input open")
	f.truth(&o.TTY, "tty", "t", "give it a terminal")
	f.truth(&o.Privileged, "privileged", "", "give it all that root has")
	f.text(&o.User, "user", "u", "`USER[:GROUP]` to run as")
	f.text(&o.WorkingDir, "workdir", "w", "`directory` to run in")
	f.text(&o.DetachKeys, "detach-keys", "", "keys that detach (default "+defaultDetachKeys+")")
	f.list(&o.Env, "env", "e", "environment: `NAME=VALUE`")
	args, err := f.parse(args, 2, -1)
	if err != nil {
		return err
	}
	if _, isTerminal := terminal(s.in); o.TTY && interactive && !detach && !isTerminal {
		return errors.New("the input device is not a TTY")
	}
	o.Cmd = args[1:]
	o.AttachStdin, o.AttachStdout, o.AttachStderr = interactive && !detach, !detach, !detach
	if height, width, ok := windowSize(s.out); ok && o.TTY {
		o.ConsoleSize = client.ConsoleSize{Height: height, Width: width}
	}
	created, err := s.api.ExecCreate(ctx, args[0], o)
	if err != nil {
		return err
	}
	if detach {
		if _, err := s.api.ExecStart(ctx, created.ID, client.ExecStartOptions{Detach: true, TTY: o.TTY}); err != nil {
			return s.startFailed(err)
		}
		return nil
	}
	return s.executeAttached(ctx, created.ID, o)
}

func (s *session) executeAttached(ctx context.Context, id string, o client.ExecCreateOptions) error {
	attached, err := s.api.ExecAttach(ctx, id, client.ExecAttachOptions{TTY: o.TTY, ConsoleSize: o.ConsoleSize})
	if err != nil {
		return s.startFailed(err)
	}
	defer attached.Close()
	if o.TTY {
		defer followSize(ctx, s.out, func(ctx context.Context, height, width uint) error {
			_, err := s.api.ExecResize(ctx, id, client.ExecResizeOptions{Height: height, Width: width})
			return err
		})()
	}
	between := streams{conn: attached.HijackedResponse, in: onlyIf(o.AttachStdin, s.in), out: s.out, err: s.err, tty: o.TTY, detachKeys: o.DetachKeys}
	if err := between.copy(ctx); err != nil {
		if errors.Is(err, errDetached) {
			fmt.Fprintln(s.err, err)
			return nil
		}
		return err
	}
	ended, err := s.api.ExecInspect(ctx, id, client.ExecInspectOptions{})
	if err != nil {
		return err
	}
	return exitCode(ended.ExitCode)
}
