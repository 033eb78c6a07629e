package cgroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/dbus"
	"github.com/engined/engined/proto/errdefs"
)

// systemd owns the cgroup tree of the hosts that it runs; a program that wants
// a part of it asks for a unit and is given the unit's cgroup ("Control Group
// APIs and Delegation", systemd.io). A container is a scope, a unit around
// processes that somebody else started, or, by its name, a slice.

// Unit is a container's unit as its cgroupsPath, "slice:prefix:name", has it.
type unit struct {
	name  string // with its suffix
	slice string // the one that it is in
	title string // the container's name
	user  bool   // of the caller's own systemd, not the host's
}

// DefaultPrefix is that of a scope's name when the spec gives no path.
const DefaultPrefix = "ocirun"

// SystemdRuns reports whether systemd is this host's service manager
// (sd_booted(3)).
func SystemdRuns() bool {
	found, err := os.Lstat("/run/systemd/system")
	return err == nil && found.IsDir()
}

// unitOf reads the spec's cgroupsPath.
func unitOf(spec *specs.Spec, id string, opts Options) (unit, error) {
	u := unit{slice: "system.slice", title: id, user: opts.Rootless || InUserNamespace()}
	if u.user {
		u.slice = "user.slice"
	}
	prefix := DefaultPrefix
	if path := pathOf(spec); path != "" {
		parts := strings.Split(path, ":")
		if len(parts) != 3 {
			return u, errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "linux.cgroupsPath",
				"expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", path)
		}
		if parts[0] != "" {
			u.slice = parts[0]
		}
		prefix, u.title = parts[1], parts[2]
	}
	if u.name = u.title; !u.isSlice() {
		u.name = prefix + "-" + u.title + ".scope"
	}
	if u.title == "" || strings.ContainsAny(u.name, "/\x00\n") {
		return u, errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "linux.cgroupsPath", "invalid unit name: %q", u.name)
	}
	_, err := slicePath(u.slice)
	return u, err
}

func (u *unit) isSlice() bool { return strings.HasSuffix(u.name, ".slice") }

// slicePath returns the cgroup of a slice below the root: "a-b.slice" is in
// "a.slice" (systemd.slice(5)).
func slicePath(name string) (string, error) {
	inner, ok := strings.CutSuffix(name, ".slice")
	if !ok || inner == "" || strings.Contains(name, "/") {
		return "", invalidSlice(name)
	}
	if inner == "-" {
		return "/", nil
	}
	path, prefix := "", ""
	for part := range strings.SplitSeq(inner, "-") {
		if part == "" {
			return "", invalidSlice(name)
		}
		prefix += part
		path += "/" + prefix + ".slice"
		prefix += "-"
	}
	return path, nil
}

func invalidSlice(name string) error {
	return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "linux.cgroupsPath", "invalid slice name: %s", name)
}

// CheckUnit says what MakeUnit would refuse, before anything is made.
func CheckUnit(spec *specs.Spec, id string, opts Options) error {
	if !SystemdRuns() {
		return errdefs.FailedPrecondition.Errorf("systemd not running on this host, cannot use systemd cgroups manager")
	}
	_, err := unitOf(spec, id, opts)
	return err
}

// MakeUnit has systemd make the cgroup with the process pid in it; a slice is
// made without it. The process must have a single thread and be in no cgroup
// that matters. Limits are the unit's too, so that systemd does not take them
// back when it next writes them. On error the cgroup, if it is not nil, has been made
// in part, and may hold the process: the caller kills that and removes the rest.
func MakeUnit(ctx context.Context, layout Layout, spec *specs.Spec, id string, opts Options, pid int) (*Cgroup, error) {
	u, err := unitOf(spec, id, opts)
	if err != nil {
		return nil, err
	}
	if u.user && layout.Mode != V2 {
		return nil, errdefs.FailedPrecondition.Errorf("cannot use rootless systemd cgroups manager on cgroup v1")
	}
	m, err := dialSystemd(ctx, u.user)
	if err != nil {
		return nil, err
	}
	defer m.close()
	properties, err := u.properties(ctx, m, layout, spec, pid)
	if err != nil {
		return nil, err
	}
	base, err := m.root(ctx, u.user)
	if err != nil {
		return nil, err
	}
	if err := m.start(ctx, u.name, properties); err != nil {
		return nil, err
	}
	c := &Cgroup{location: layout.unitLocation(&u, base)}
	for _, h := range layout.hierarchies {
		if err := c.join(h, layout.Mode == V2, opts.Rootless, spec.Linux.Resources, pid); err != nil {
			return c, err
		}
	}
	return c, nil
}

// join makes the unit's directory where systemd does not: in v1's hierarchies
// that it leaves alone, as the freezer's. On v2 it enables the controllers that
// systemd did not.
func (c *Cgroup) join(h Hierarchy, v2, rootless bool, r *specs.LinuxResources, pid int) error {
	dir := c.location.V2
	if h.Name != "" {
		dir = c.location.V1[h.Name]
	}
	made, err := h.make(dir, v2)
	if err == nil && h.has("cpuset") && !v2 {
		err = fillCpuset(dir, r, made)
	}
	if rootless && lacksPermission(err) {
		err = nil
	}
	if err != nil {
		return err
	}
	return (&Cgroup{location: Location{V2: dir}}).Add(pid)
}

// unitLocation says where the unit's cgroup is. base is the manager's own, in
// which its slices are.
func (l Layout) unitLocation(u *unit, base map[string]string) Location {
	location := Location{Unit: u.name, User: u.user}
	slices, _ := slicePath(u.slice) // checked by unitOf
	if u.isSlice() {
		if path, err := slicePath(u.name); err == nil {
			slices = filepath.Dir(path)
		}
	}
	for _, h := range l.hierarchies {
		location.add(h.Name, h.at(filepath.Join("/", base[h.Name], slices, u.name)))
	}
	return location
}

// LocateUnit returns where MakeUnit puts the cgroup if the host's systemd makes
// it, false if the spec cannot be meant for systemd.
func LocateUnit(layout Layout, spec *specs.Spec, id string) (Location, bool) {
	u, err := unitOf(spec, id, Options{})
	if err != nil || u.user || !SystemdRuns() {
		return Location{}, false
	}
	return layout.unitLocation(&u, hostRoot()), true
}

// hostRoot is the cgroup of the host's systemd: the parent of its init.scope.
// On a machine it is the root of every hierarchy.
func hostRoot() map[string]string {
	data, err := os.ReadFile("/proc/1/cgroup")
	if err != nil {
		return nil
	}
	root := parseOwn(string(data))
	for name, path := range root {
		root[name] = strings.TrimSuffix(path, "init.scope")
	}
	return root
}

// updateUnit tells systemd of changed limits; Update writes them as well.
func (c *Cgroup) updateUnit(ctx context.Context, r *specs.LinuxResources) error {
	if c.location.Unit == "" {
		return nil
	}
	m, err := dialSystemd(ctx, c.location.User)
	if err != nil {
		return err
	}
	defer m.close()
	properties, err := resourceProperties(ctx, m, c.unified(), r)
	if err != nil || len(properties) == 0 {
		return err
	}
	return m.set(ctx, c.location.Unit, properties)
}

// stopUnit ends the unit. One that is gone is fine: systemd drops a scope when
// its last process ends.
func (c *Cgroup) stopUnit(ctx context.Context) error {
	m, err := dialSystemd(ctx, c.location.User)
	if err != nil {
		return err
	}
	defer m.close()
	return m.stop(ctx, c.location.Unit)
}

// systemd is a connection to a service manager.
type systemd struct{ conn *dbus.Conn }

// The names that it goes by.
const (
	systemdName      = "org.freedesktop.systemd1"
	systemdPath      = "/org/freedesktop/systemd1"
	systemdManager   = "org.freedesktop.systemd1.Manager"
	systemdExists    = "org.freedesktop.systemd1.UnitExists"
	systemdNoSuch    = "org.freedesktop.systemd1.NoSuchUnit"
	systemdNotLoaded = "org.freedesktop.systemd1.NotLoaded"
)

// systemdPatience bounds one conversation, as runc's.
const systemdPatience = 30 * time.Second

// dialSystemd connects to the host's systemd or the user's own. Their private
// sockets come first: one hop less than a bus, and there before it.
func dialSystemd(ctx context.Context, user bool) (*systemd, error) {
	private, address := "/run/systemd/private", os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	bus := "unix:path=/run/dbus/system_bus_socket"
	if user {
		runtime := os.Getenv("XDG_RUNTIME_DIR")
		private, address = runtime+"/systemd/private", os.Getenv("DBUS_SESSION_BUS_ADDRESS")
		bus = "unix:path=" + runtime + "/bus"
		if runtime == "" && address == "" {
			return nil, errdefs.FailedPrecondition.Errorf("systemd cgroups need the user's session: neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set")
		}
	}
	if address == "" {
		address = bus
	}
	conn, privateErr := dbus.DialPeer(ctx, private)
	if privateErr == nil {
		return &systemd{conn}, nil
	}
	conn, err := dbus.DialBus(ctx, address)
	if err != nil {
		return nil, errdefs.Unavailable.Errorf("reaching systemd: %w", errors.Join(privateErr, err))
	}
	s := &systemd{conn}
	if err := s.subscribe(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// subscribe has the bus hand us systemd's signals.
func (s *systemd) subscribe(ctx context.Context) error {
	err := s.conn.Match(ctx, "type='signal',interface='"+systemdManager+"',member='JobRemoved'")
	if err == nil {
		_, err = s.call(ctx, "Subscribe")
	}
	if err != nil {
		return fmt.Errorf("subscribing to systemd's signals: %w", err)
	}
	return nil
}

func (s *systemd) close() {
	if err := s.conn.Close(); err != nil {
		slog.Debug("closing the connection to systemd: " + err.Error())
	}
}

// call calls a method of the manager.
func (s *systemd) call(ctx context.Context, method string, args ...any) ([]any, error) {
	return s.conn.Call(ctx, &dbus.Message{
		Destination: systemdName, Path: systemdPath, Interface: systemdManager, Member: method, Body: args,
	})
}

// get reads a property of the manager, a text.
func (s *systemd) get(ctx context.Context, property string) (string, error) {
	answer, err := s.conn.Call(ctx, &dbus.Message{
		Destination: systemdName, Path: systemdPath, Interface: "org.freedesktop.DBus.Properties", Member: "Get",
		Body: []any{systemdManager, property},
	})
	if err != nil {
		return "", fmt.Errorf("asking systemd for its %s: %w", property, err)
	}
	if len(answer) == 1 {
		if value, ok := answer[0].(dbus.Variant); ok {
			if text, ok := value.Value.(string); ok {
				return text, nil
			}
		}
	}
	return "", errdefs.Internal.Errorf("asking systemd for its %s: expected a text, got %v", property, answer)
}

// root is the cgroup below which the manager has its slices.
func (s *systemd) root(ctx context.Context, user bool) (map[string]string, error) {
	if !user {
		return hostRoot(), nil
	}
	path, err := s.get(ctx, "ControlGroup")
	return map[string]string{"": path}, err
}

// start starts a transient unit and waits for it. One of that name that has
// failed and was kept is dropped.
func (s *systemd) start(ctx context.Context, name string, properties []dbus.Struct) error {
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	begin := func() ([]any, error) {
		return s.call(ctx, "StartTransientUnit", name, "replace", propertyArray(properties), dbus.Array{Element: "(sa(sv))"})
	}
	job, err := begin()
	if isCallError(err, systemdExists) {
		s.reset(ctx, name)
		job, err = begin()
	}
	if isCallError(err, systemdExists) {
		return errdefs.AlreadyExists.Errorf("creating systemd unit %s: %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("creating systemd unit %s: %w", name, err)
	}
	result, err := s.await(ctx, job)
	if err != nil {
		return fmt.Errorf("waiting for systemd to create unit %s: %w", name, err)
	}
	if result != "done" {
		s.reset(ctx, name)
		return errdefs.Internal.Errorf("error creating systemd unit %s: its job ended with %q", name, result)
	}
	return nil
}

// stop stops a unit and waits for it.
func (s *systemd) stop(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	job, err := s.call(ctx, "StopUnit", name, "replace")
	switch {
	case isCallError(err, systemdNoSuch), isCallError(err, systemdNotLoaded):
		return nil
	case err != nil:
		return fmt.Errorf("stopping systemd unit %s: %w", name, err)
	}
	if _, err := s.await(ctx, job); err != nil {
		return fmt.Errorf("waiting for systemd to stop unit %s: %w", name, err)
	}
	s.reset(ctx, name)
	return nil
}

// reset has systemd forget a unit that failed, as one whose process the OOM
// killer ended; for others it is an error that says nothing.
func (s *systemd) reset(ctx context.Context, name string) {
	if _, err := s.call(ctx, "ResetFailedUnit", name); err != nil {
		slog.Debug("resetting systemd unit " + name + ": " + err.Error())
	}
}

// set changes properties until the next boot.
func (s *systemd) set(ctx context.Context, name string, properties []dbus.Struct) error {
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	if _, err := s.call(ctx, "SetUnitProperties", name, true, propertyArray(properties)); err != nil {
		return fmt.Errorf("setting properties of systemd unit %s: %w", name, err)
	}
	return nil
}

// await waits for JobRemoved(id, job, unit, result) of the job that a call
// answered with.
func (s *systemd) await(ctx context.Context, answer []any) (result string, err error) {
	if len(answer) != 1 {
		return "", errdefs.Internal.Errorf("expected a job from systemd, got %v", answer)
	}
	m, err := s.conn.Await(ctx, func(m *dbus.Message) bool {
		return m.Interface == systemdManager && m.Member == "JobRemoved" && len(m.Body) == 4 && m.Body[1] == answer[0]
	})
	if err != nil {
		return "", err
	}
	result, _ = m.Body[3].(string)
	return result, nil
}

func isCallError(err error, name string) bool {
	var failed *dbus.CallError
	return errors.As(err, &failed) && failed.Name == name
}
