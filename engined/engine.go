package engined

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/engined/api"
	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/network"
	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/engined/system"
	"github.com/engined/engined/engined/task"
)

// stopTimeout bounds the end of each part after the requests have ended.
const stopTimeout = 20 * time.Second

// engine is all parts. Each is opened by the method of its name, which also
// says how it is stopped; Run opens them in the order of their dependencies.
type engine struct {
	config  Config
	version string
	args    []string // for a reload
	log     *slog.Logger
	level   *slog.LevelVar

	stops []stop // newest last

	gate    *api.Gate
	server  *http.Server
	serving sync.WaitGroup
	closing chan struct{}
	failed  chan error // a part that ended by itself

	runtime     string
	connecting  sync.WaitGroup // until which the three that follow are connect's
	unconnected error
	keeper      *keeper // nil: somebody else's supervisor
	tasks       *task.Client

	db         *store.DB
	events     *events.Log
	layers     *layer.Store
	registry   *registry.Client
	images     *image.Store
	networks   *network.Service
	containers *container.Service
	system     *system.Service
}

type stop struct {
	what string
	run  func(context.Context) error
}

// Run is the daemon: it returns when it has been told to stop and has, or with
// the reason why it cannot run.
func Run(ctx context.Context, version string, config Config, args []string) (err error) {
	ctx, signals := watchSignals(ctx)
	defer signals.stop()
	e := &engine{config: config, version: version, args: args, level: new(slog.LevelVar), closing: make(chan struct{}), failed: make(chan error, 4)}
	if err := e.openLog(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stopAll()) }()
	if err := e.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while starting
		}
		return err
	}
	return e.run(ctx, signals)
}

// open opens all parts.
func (e *engine) open(ctx context.Context) error {
	for _, step := range []struct {
		what string
		open func(context.Context) error
	}{
		{"directories", e.openRoots},
		{"locks", e.openLocks},
		{"listeners", e.openListeners},
		{"runtime", e.startSupervisor},
		{"store", e.openStore},
		{"layers", e.openLayers},
		{"registry", e.openRegistry},
		{"images", e.openImages},
		{"networks", e.openNetworks},
		{"supervisor", e.awaitSupervisor},
		{"containers", e.openContainers},
		{"system", e.openSystem},
	} {
		began := time.Now()
		if err := step.open(ctx); err != nil {
			return fmt.Errorf("opening %s: %w", step.what, err)
		}
		e.log.Debug("opened", "part", step.what, "took", time.Since(began))
	}
	return nil
}

// onStop says how the part just opened is stopped.
func (e *engine) onStop(what string, run func(context.Context) error) {
	e.stops = append(e.stops, stop{what, run})
}

// background runs what goes on until the engine stops, which waits for its end.
func (e *engine) background(what string, run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	e.onStop(what, func(context.Context) error {
		cancel()
		running.Wait()
		return nil
	})
}

// stopAll stops what was opened, newest first.
func (e *engine) stopAll() error {
	var failed []error
	for i := len(e.stops) - 1; i >= 0; i-- {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		if err := e.stops[i].run(ctx); err != nil {
			failed = append(failed, fmt.Errorf("stopping %s: %w", e.stops[i].what, err))
		}
		cancel()
	}
	e.stops = nil
	return errors.Join(failed...)
}

func (e *engine) openLog() error {
	level, err := e.config.level()
	if err != nil {
		return err
	}
	e.level.Set(level)
	e.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: e.level}))
	slog.SetDefault(e.log)
	return nil
}

func (e *engine) openRoots(context.Context) error {
	// Containers' own users pass through to their files, and see nothing else.
	if err := os.MkdirAll(e.config.DataRoot, 0o710); err != nil {
		return err
	}
	return os.MkdirAll(e.config.ExecRoot, 0o711)
}

// openLocks makes sure that there is one engined per pidfile and per root.
func (e *engine) openLocks(context.Context) error {
	for _, path := range []string{e.config.Pidfile, filepath.Join(e.config.DataRoot, "engined.lock"), filepath.Join(e.config.ExecRoot, "engined.lock")} {
		held, err := take(path)
		if err != nil {
			return err
		}
		e.onStop("lock", func(context.Context) error { return held.drop() })
	}
	return nil
}

// openListeners begins to accept. Requests wait at the gate.
func (e *engine) openListeners(context.Context) error {
	listeners, err := listen(&e.config)
	if err != nil {
		return err
	}
	e.gate = api.NewGate()
	e.server = &http.Server{
		Handler:           e.gate,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
	for i, l := range listeners {
		e.serving.Go(func() {
			if err := e.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				e.failed <- fmt.Errorf("serving on %s: %w", e.config.Hosts[min(i, len(e.config.Hosts)-1)], err)
			}
		})
	}
	e.onStop("listeners", func(context.Context) error { return e.closeListeners(listeners) })
	return nil
}

// closeListeners stops accepting, ends streams and gives requests some time.
func (e *engine) closeListeners(listeners []net.Listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(e.config.ShutdownTimeout)*time.Second)
	defer cancel()
	close(e.closing)
	e.gate.Open(api.Stopping()) // unless it is open
	err := e.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		e.log.Warn("requests did not end in time and are cut off", "timeout", e.config.ShutdownTimeout)
		err = e.server.Close()
	}
	e.serving.Wait()
	e.gate.Drain(ctx)
	closeAll(listeners)
	return err
}

func (e *engine) openStore(ctx context.Context) (err error) {
	if e.db, err = store.Open(ctx, filepath.Join(e.config.DataRoot, "engined.db")); err != nil {
		return err
	}
	e.onStop("store", func(context.Context) error { return e.db.Close() })
	e.events = events.New()
	e.onStop("events", func(context.Context) error { e.events.Close(); return nil })
	return nil
}

// startSupervisor begins to connect to the configured supervisor or to our own,
// which takes as long as all that is opened until awaitSupervisor.
func (e *engine) startSupervisor(ctx context.Context) (err error) {
	if e.runtime = e.config.Runtime; e.runtime == "" {
		if e.runtime, err = findBinary("ocirun"); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	e.connecting.Go(func() { e.unconnected = e.connect(ctx) })
	e.onStop("supervisor", func(ctx context.Context) error {
		cancel()
		e.connecting.Wait()
		return e.closeSupervisor(ctx)
	})
	return nil
}

// connect sets keeper and tasks, or one of them, or neither.
func (e *engine) connect(ctx context.Context) (err error) {
	address := e.config.Supervisor
	if address == "" {
		if e.keeper, err = ownSupervisor(ctx, &e.config, e.runtime, e.log); err != nil {
			return err
		}
		address = e.keeper.address()
	}
	ctx, cancel := context.WithTimeout(ctx, supervisorStart)
	defer cancel()
	e.tasks, err = task.Dial(ctx, address)
	return err
}

func (e *engine) awaitSupervisor(context.Context) error {
	e.connecting.Wait() // it is bounded by supervisorStart
	return e.unconnected
}

// closeSupervisor ends our own supervisor if it has nothing to look after.
func (e *engine) closeSupervisor(ctx context.Context) error {
	idle := e.keeper != nil && e.idle(ctx)
	var failed error
	if e.tasks != nil {
		failed = e.tasks.Close()
	}
	if e.keeper == nil {
		return failed
	}
	if !idle {
		e.keeper.leave()
		return failed
	}
	return errors.Join(failed, e.keeper.stop(ctx))
}

// idle says whether the supervisor has no container. Not to know is not idle.
func (e *engine) idle(ctx context.Context) bool {
	if e.tasks == nil {
		return false
	}
	snapshot, err := e.tasks.Snapshot(ctx)
	if err != nil {
		e.log.Warn("the supervisor is left alone", "error", err)
		return false
	}
	return len(snapshot.Containers) == 0
}

func (e *engine) openLayers(ctx context.Context) (err error) {
	driver := e.config.driver()
	if driver != e.config.StorageDriver {
		e.log.Info("the storage driver is that of the environment", driverVariable, driver)
	}
	e.layers, err = layer.Open(ctx, e.db, e.config.DataRoot, layer.Options{
		Driver: driver, DriverOptions: e.config.StorageOptions, Logger: e.log,
	})
	if err == nil {
		e.onStop("layers", func(context.Context) error { return e.layers.Close() })
	}
	return err
}

func (e *engine) openRegistry(context.Context) (err error) {
	e.registry, err = registry.Open(registry.Options{
		Dir: filepath.Join(e.config.DataRoot, "tmp"), Insecure: e.config.InsecureRegistries, Mirrors: e.config.RegistryMirrors,
		CertDirs:  e.config.RegistryCerts,
		Downloads: e.config.MaxDownloads, Uploads: e.config.MaxUploads, Attempts: e.config.MaxDownloadAttempts,
		Agent: fmt.Sprintf("engined/%s go/%s os/%s arch/%s", e.version, runtime.Version(), runtime.GOOS, runtime.GOARCH), Logger: e.log,
	})
	if err == nil {
		e.onStop("registry", func(context.Context) error { return e.registry.Close() })
	}
	return err
}

func (e *engine) openImages(ctx context.Context) (err error) {
	if e.images, err = image.Open(ctx, e.db, e.layers, e.events, e.config.DataRoot); err == nil {
		err = e.images.Connect(ctx, e.registry)
	}
	return err
}

func (e *engine) openNetworks(ctx context.Context) error {
	subnet, err := e.config.subnet()
	if err != nil {
		return err
	}
	e.networks, err = network.Open(ctx, e.db, e.events, network.Options{
		ExecRoot: e.config.ExecRoot, Bridge: e.config.Bridge, Subnet: subnet,
		NoForward: !e.config.IPForward, NoRules: !e.config.IPTables, Logger: e.log,
	})
	if err == nil {
		e.onStop("networks", e.networks.Close)
	}
	return err
}

// openContainers restores the containers and begins to follow the supervisor.
func (e *engine) openContainers(ctx context.Context) (err error) {
	e.containers, err = container.Open(ctx, container.Deps{
		DB: e.db, Events: e.events, Images: e.images, Layers: e.layers, Networks: e.networks, Tasks: e.tasks,
		Root: e.config.DataRoot, ExecRoot: e.config.ExecRoot, Logger: e.log,
		CgroupV2: system.CgroupV2(), AppArmor: system.AppArmor(),
		LogConfig: apicontainer.LogConfig{Type: e.config.LogDriver, Config: e.config.LogOptions},
	})
	if err != nil {
		return err
	}
	e.background("containers", func(running context.Context) {
		if err := e.containers.Run(running); err != nil && running.Err() == nil {
			e.failed <- fmt.Errorf("following the supervisor: %w", err)
		}
	})
	select {
	case <-e.containers.Ready():
		return nil
	case err := <-e.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *engine) openSystem(context.Context) (err error) {
	e.system, err = system.Open(system.Settings{
		Version: e.version, DataRoot: e.config.DataRoot, Runtime: e.runtime,
		LogDriver: e.config.LogDriver, LogDrivers: []string{"json-file"},
		NetworkDrivers: []string{"bridge", "host", "null"},
		Labels:         e.config.Labels, Debug: e.config.Debug,
	}, system.Sources{Containers: e.containers, Storage: e.layers, Supervisor: e.tasks, Images: e.images.Count})
	return err
}

// run lets the requests through until the daemon is to stop.
func (e *engine) run(ctx context.Context, signals *signals) error {
	server := &api.Server{
		Containers: e.containers, Images: e.images, Networks: e.networks, Registries: e.registry, Events: e.events, System: e.system,
		Agent: fmt.Sprintf("Engined/%s (%s)", e.version, runtime.GOOS), Log: e.log, Closing: e.closing,
	}
	e.gate.Open(server.Handler())
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		e.log.Warn("telling systemd that we are ready", "error", err)
	}
	e.reportImages()
	e.log.Info("API listen", "hosts", e.config.Hosts, "pid", os.Getpid())
	for {
		select {
		case <-ctx.Done():
			e.log.Info("stopping; containers go on")
			if _, err := daemon.SdNotify(false, daemon.SdNotifyStopping); err != nil {
				e.log.Warn("telling systemd that we are stopping", "error", err)
			}
			return nil
		case err := <-e.failed:
			return err
		case <-signals.reload:
			e.reload()
		}
	}
}

// reportImages reads all images, for which the first answer does not wait.
func (e *engine) reportImages() {
	e.background("report of images", func(ctx context.Context) {
		if err := e.images.Report(ctx); err != nil && ctx.Err() == nil {
			e.log.ErrorContext(ctx, "reading the images", "error", err)
		}
	})
}

// reload reads the configuration again and applies what can be changed. A
// wrong one changes nothing.
func (e *engine) reload() {
	fresh, err := Load(e.args, os.Stderr)
	if err != nil {
		e.log.Error("the configuration stays as it was", "error", err)
		return
	}
	level, err := fresh.level()
	if err != nil {
		e.log.Error("the configuration stays as it was", "error", err)
		return
	}
	if keys := e.config.fixed(&fresh); len(keys) > 0 {
		e.log.Warn("these settings change with the next start only", "settings", keys)
	}
	e.level.Set(level)
	e.config.Debug, e.config.LogLevel, e.config.Labels, e.config.ShutdownTimeout = fresh.Debug, fresh.LogLevel, fresh.Labels, fresh.ShutdownTimeout
	e.system.Change(fresh.Labels, fresh.Debug)
	e.events.Publish(apievents.DaemonEventType, apievents.ActionReload, apievents.Actor{ID: e.system.ID(), Attributes: map[string]string{"name": e.system.Name()}})
	e.log.Info("configuration reloaded", "debug", fresh.Debug, "log-level", fresh.LogLevel)
}
