package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Exit codes of docker run for what is not the process's own.
const (
	refused       = 125 // by the engine
	cannotExecute = 126
	notFound      = 127
)

// runOptions are those of run and create.
type runOptions struct {
	settings
	detach, noProxy bool
	detachKeys      string
}

func (o *runOptions) define(f *flags) {
	f.truth(&o.detach, "detach", "d", "do not wait for it, print its id")
	f.text(&o.detachKeys, "detach-keys", "", "keys that detach (default "+defaultDetachKeys+")")
	f.set.Func("sig-proxy", "pass signals on (default true)", func(given string) error {
		o.noProxy = given == "false" || given == "0"
		return nil
	})
	o.settings.define(f)
}

func create(ctx context.Context, s *session, f *flags, args []string) error {
	var o runOptions
	o.define(f)
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	id, err := s.create(ctx, &o, args)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, id)
	return nil
}

// create makes the container; image and command are args.
func (s *session) create(ctx context.Context, o *runOptions, args []string) (id string, err error) {
	o.attach = !o.detach
	request, err := o.request(args[0], args[1:])
	if err != nil {
		return "", err
	}
	created, err := s.api.ContainerCreate(ctx, request)
	if err != nil {
		if err := s.pullMissing(ctx, args[0], err); err != nil {
			return "", err
		}
		if created, err = s.api.ContainerCreate(ctx, request); err != nil {
			return "", err
		}
	}
	for _, warning := range created.Warnings {
		fmt.Fprintf(s.err, "WARNING: %s\n", warning)
	}
	return created.ID, nil
}

func run(ctx context.Context, s *session, f *flags, args []string) error {
	var o runOptions
	o.define(f)
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	if _, isTerminal := terminal(s.in); o.tty && o.interactive && !o.detach && !isTerminal {
		return errors.New("the input device is not a TTY")
	}
	id, err := s.create(ctx, &o, args)
	if err != nil {
		return err
	}
	if o.detach {
		if _, err := s.api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
			return s.startFailed(err)
		}
		fmt.Fprintln(s.out, id)
		return nil
	}
	return s.runAttached(ctx, id, &o)
}

// runAttached attaches, waits, then starts: in this order nothing is missed.
func (s *session) runAttached(ctx context.Context, id string, o *runOptions) error {
	attached, err := s.api.ContainerAttach(ctx, id, client.ContainerAttachOptions{
		Stream: true, Stdin: o.interactive, Stdout: true, Stderr: true, DetachKeys: o.detachKeys,
	})
	if err != nil {
		return err
	}
	defer attached.Close()
	condition := apicontainer.WaitConditionNextExit
	if o.autoRemove {
		condition = apicontainer.WaitConditionRemoved
	}
	ended := s.api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: condition})
	if !o.noProxy && !o.tty {
		defer proxySignals(ctx, s.api, id, s.err)()
	}
	if _, err := s.api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return s.startFailed(err)
	}
	return s.follow(ctx, id, &streams{
		conn: attached.HijackedResponse, in: onlyIf(o.interactive, s.in), out: s.out, err: s.err,
		tty: o.tty, detachKeys: o.detachKeys,
	}, ended)
}

// follow copies a container's streams and returns its exit code.
func (s *session) follow(ctx context.Context, id string, between *streams, ended client.ContainerWaitResult) error {
	if between.tty {
		defer followSize(ctx, s.out, func(ctx context.Context, height, width uint) error {
			_, err := s.api.ContainerResize(ctx, id, client.ContainerResizeOptions{Height: height, Width: width})
			return err
		})()
	}
	if err := between.copy(ctx); err != nil {
		if errors.Is(err, errDetached) {
			fmt.Fprintln(s.err, err)
			return nil
		}
		return err
	}
	select {
	case result := <-ended.Result:
		if result.Error != nil {
			return errors.New(result.Error.Message)
		}
		return exitCode(int(result.StatusCode))
	case err := <-ended.Error:
		return err
	}
}

func exitCode(status int) error {
	if status == 0 {
		return nil
	}
	return exit(status)
}

// startFailed says why a container did not start, and with which exit code.
// The API has no other place for the reason than its words, which docker's
// command line reads in this way too.
func (s *session) startFailed(err error) error {
	fmt.Fprintf(s.err, "engined: %v\n", err)
	for _, known := range []struct {
		words string
		code  exit
	}{
		{"executable file not found", notFound},
		{"no such file or directory", notFound},
		{"permission denied", cannotExecute},
		{"is a directory", cannotExecute},
		{"exec format error", cannotExecute},
	} {
		if strings.Contains(err.Error(), known.words) {
			return known.code
		}
	}
	return exit(refused)
}

// onlyIf returns in, or nil.
func onlyIf(wanted bool, in io.Reader) io.Reader {
	if !wanted {
		return nil
	}
	return in
}
