package container

import (
	"context"
	"io"
	"path/filepath"

	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/logs"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"

	"fmt"
	"strconv"
	"strings"
)

// Logs writes a container's log to w. A follower ends when the container has
// stopped and all it wrote is told.
func (s *Service) Logs(ctx context.Context, ref string, options LogsOptions, w LogWriter) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	r := c.record.Load()
	spec, err := logSpec(r, s.logPath(c.id))
	if err != nil {
		return err
	}
	if spec == nil {
		return errdefs.NotImplemented.Errorf("configured logging driver does not support reading")
	}
	stdout, stderr, err := w.Begin(r.Config.Tty)
	if err != nil {
		return err
	}
	var done chan struct{}
	if options.Follow {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		done = make(chan struct{})
		ended := c.await(endOfFollowing(r))
		defer c.forget(ended)
		followed := make(chan struct{})
		defer func() { cancel(); <-followed }()
		go func() {
			defer close(followed)
			select {
			case <-ended.done:
				close(done)
			case <-ctx.Done():
			}
		}()
	}
	return logs.Copy(ctx, logs.Request{
		Driver: spec.Driver, Path: spec.Path,
		Read:       logs.Following(options.Since, options.Until, options.Tail, done),
		Timestamps: options.Timestamps,
		Details:    options.Details,
	}, wanted(options.Stdout, stdout), wanted(options.Stderr, stderr))
}

// endOfFollowing: one who follows a container that was never started waits for
// its first run; of one that has ended there is nothing to wait for.
func endOfFollowing(r *Record) apicontainer.WaitCondition {
	if r.Phase() == created {
		return apicontainer.WaitConditionNextExit
	}
	return waitNotRunning
}

func wanted(is bool, w io.Writer) io.Writer {
	if !is {
		return nil
	}
	return w
}

// logSpec reads HostConfig.LogConfig. Nil: nothing is logged.
func logSpec(r *Record, path string) (*shim.Log, error) {
	config := r.HostConfig.LogConfig
	if config.Type == "none" {
		return nil, nil //nolint:nilnil // no log
	}
	log := &shim.Log{Driver: config.Type, Path: path, MaxFile: 1}
	if log.Driver == "local" {
		log.Path = filepath.Join(filepath.Dir(path), "local.log")
		log.MaxSize, log.MaxFile, log.Compress = 20<<20, 5, true
	}
	for name, value := range config.Config {
		if err := setLogOption(log, r, name, value); err != nil {
			return nil, err
		}
	}
	if log.MaxFile > 1 && log.MaxSize <= 0 {
		return nil, fmt.Errorf("max-file cannot be set without max-size")
	}
	return log, nil
}

func setLogOption(log *shim.Log, r *Record, name, value string) (err error) {
	switch name {
	case "max-size":
		if value == "-1" {
			log.MaxSize = 0
			return nil
		}
		if log.MaxSize, err = units.RAMInBytes(value); err != nil || log.MaxSize <= 0 {
			return fmt.Errorf("max-size: invalid size %q", value)
		}
	case "max-file":
		if log.MaxFile, err = strconv.Atoi(value); err != nil || log.MaxFile < 1 {
			return fmt.Errorf("max-file: %q: expected a number above zero", value)
		}
	case "compress":
		if log.Compress, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("compress: %q: expected true or false", value)
		}
	case "labels", "env":
		addAttributes(log, r, name, value)
	case "mode", "max-buffer-size":
		return errdefs.NotImplemented.Errorf("HostConfig.LogConfig.Config: option %s is not implemented", name)
	default:
		return fmt.Errorf("unknown log opt '%s' for %s log driver", name, log.Driver)
	}
	return nil
}

// addAttributes adds labels or variables of the container to each line.
func addAttributes(log *shim.Log, r *Record, kind, names string) {
	if log.Attrs == nil {
		log.Attrs = make(map[string]string)
	}
	have := r.Config.Labels
	if kind == "env" {
		have = make(map[string]string)
		for _, variable := range r.Config.Env {
			name, value, _ := strings.Cut(variable, "=")
			have[name] = value
		}
	}
	for name := range strings.SplitSeq(names, ",") {
		if value, has := have[name]; has {
			log.Attrs[name] = value
		}
	}
}
