// Supervisor starts containers and keeps them; see package supervisor.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/engined/engined/runtime"
	"github.com/engined/engined/supervisor"
)

// version and revision are set by the build.
var (
	version  = "unknown"
	revision = ""
)

// stopGrace is how long work that is under way may take after TERM.
const stopGrace = 10 * time.Second

// defaultAddress is where engined and grpcurl look.
const defaultAddress = "unix:///run/engined/supervisor.sock"

type addresses []string

func (a *addresses) String() string         { return strings.Join(*a, " ") }
func (a *addresses) Set(value string) error { *a = append(*a, value); return nil }

type options struct {
	listen                        addresses
	stateDir, root, shim, runtime string
	workers                       int
	startTimeout                  time.Duration
	journalEvents                 int
	debug, version                bool
	metrics                       string
}

// profileRate is Go's own; samples of allocations are for /debug/pprof/ alone,
// and where nobody can read them each is a page for ever.
var profileRate = goruntime.MemProfileRate

func init() { goruntime.MemProfileRate = 0 }

// collectEarly is the percentage by which the heap grows between two collections,
// from 2 MiB instead of 4: of what a burst of work has needed less stays, since
// the objects that live on are spread over fewer pages. It may grow more at the
// start, until all is read and the first clients have their answers.
const (
	collectEarly   = 50
	collectAtStart = 200
	startTakes     = time.Second // from serving
)

func main() {
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	case o.version:
		fmt.Println("supervisor", version, revision)
		return
	}
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
		goruntime.MemProfileRate = profileRate
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := run(o, logger); err != nil {
		logger.Error("supervisor ends", "error", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("supervisor", flag.ContinueOnError)
	flags.Var(&o.listen, "listen", "`address` to serve, repeatable: unix:///path, or tcp://127.0.0.1:port (default "+defaultAddress+")")
	flags.StringVar(&o.stateDir, "state-dir", "/run/engined/supervisor", "`directory` of the containers' state, which should not outlive a boot")
	flags.StringVar(&o.root, "runtime-root", "", "`directory` of the runtimes' own state (default STATE-DIR-runtime)")
	flags.StringVar(&o.shim, "shim", "shim", "`name or path` of the shim's binary")
	flags.StringVar(&o.runtime, "runtime", "ocirun", "`name or path` of the OCI runtime")
	flags.IntVar(&o.workers, "workers", 10, "containers that start at the same time")
	flags.DurationVar(&o.startTimeout, "start-timeout", runtime.DefaultLimits.Start, "how long a process may take to start")
	flags.IntVar(&o.journalEvents, "journal-events", 0, "events to keep, at least 8 (default 65536)")
	flags.StringVar(&o.metrics, "metrics-address", "", "`address` as in --listen for GET /metrics, Prometheus' text (default none)")
	flags.BoolVar(&o.debug, "debug", false, "log requests that fail and more; serve /debug/pprof/ at --metrics-address")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q", flags.Arg(0))
		fmt.Fprintln(flags.Output(), err)
		return o, err
	}
	if len(o.listen) == 0 {
		o.listen = addresses{defaultAddress}
	}
	if o.root == "" {
		o.root = strings.TrimRight(o.stateDir, "/") + "-runtime"
	}
	return o, nil
}

func run(o options, logger *slog.Logger) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	config, err := configOf(o, logger)
	if err != nil {
		return err
	}
	watchSignals()
	collect := os.Getenv("GOGC") == ""
	if collect {
		debug.SetGCPercent(collectAtStart)
	}
	supervisor.TakePrecedence(logger)
	s, err := supervisor.Open(config)
	if err != nil {
		return err
	}
	reaping, stopReaping := context.WithCancel(context.Background())
	var reaper sync.WaitGroup
	reaper.Go(func() { runtime.ReapStrays(reaping) })
	defer reaper.Wait()
	defer stopReaping()
	if o.metrics != "" {
		listener, err := supervisor.Listen(o.metrics)
		if err != nil {
			return errors.Join(fmt.Errorf("--metrics-address: %w", err), s.Close(0))
		}
		s.ServeMetrics(listener, o.debug)
	}
	var listeners []net.Listener
	for _, address := range o.listen {
		listener, err := supervisor.Listen(address)
		if err != nil {
			return errors.Join(err, s.Close(0))
		}
		if strings.HasPrefix(address, "tcp:") {
			logger.Warn("anybody on this machine can use the supervisor, and so become root", "address", address)
		}
		listeners = append(listeners, listener)
	}
	err = s.Serve(ctx, listeners, stopGrace, func() {
		if collect {
			time.AfterFunc(startTakes, func() { s.Collect(collectEarly) })
		}
		logger.Info("serving", "listen", o.listen.String(), "state", config.Host.StateDir, "pid", os.Getpid())
		if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
			logger.Warn("telling systemd", "error", err)
		}
	})
	return errors.Join(err, s.Close(stopGrace))
}

func configOf(o options, logger *slog.Logger) (supervisor.Config, error) {
	shim, err := runtime.FindBinary(o.shim)
	if err != nil {
		return supervisor.Config{}, fmt.Errorf("--shim %s: %w", o.shim, err)
	}
	stateDir, err := filepath.Abs(o.stateDir)
	if err != nil {
		return supervisor.Config{}, fmt.Errorf("--state-dir %s: %w", o.stateDir, err)
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return supervisor.Config{}, fmt.Errorf("--runtime-root %s: %w", o.root, err)
	}
	limits := runtime.DefaultLimits
	limits.Start = o.startTimeout
	host := &runtime.Host{StateDir: stateDir, Root: root, Shim: shim, Runtime: o.runtime, Limits: limits, Logger: logger}
	if _, err := host.ResolveRuntime(""); err != nil {
		logger.Warn("the default runtime is not there; requests must name one", "error", err)
	}
	return supervisor.Config{
		Host: host, Workers: o.workers, Version: version, Revision: revision,
		Journal: supervisor.JournalLimits{Events: o.journalEvents}, Logger: logger,
	}, nil
}
