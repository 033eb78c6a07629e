package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"
	apimount "github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

func TestTheImageCompletesWhatAClientAsksFor(t *testing.T) {
	w := newWorld(t).run()
	c := &w.images.config
	c.Env, c.Cmd, c.Entrypoint = []string{"PATH=/bin", "A=image"}, []string{"serve"}, []string{"/entry"}
	c.WorkingDir, c.User, c.StopSignal = "/srv/", "joe", "INT"
	c.Labels, c.ExposedPorts = map[string]string{"a": "1", "b": "1"}, map[string]struct{}{"80/tcp": {}}
	c.Volumes = map[string]struct{}{"/data": {}}
	inspect := func(adjust func(*CreateRequest)) apicontainer.InspectResponse {
		found, err := w.Inspect(t.Context(), w.create("", func(r *CreateRequest) {
			r.Config.Cmd = nil
			adjust(r)
		}), false)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	r := inspect(func(r *CreateRequest) {
		r.Config.Env, r.Config.Labels = []string{"A=client"}, map[string]string{"b": "2"}
	})
	if r.Path != "/entry" || !slices.Equal(r.Args, []string{"serve"}) {
		t.Errorf("command %s %v", r.Path, r.Args)
	}
	if !slices.Equal(r.Config.Env, []string{"PATH=/bin", "A=client"}) || r.Config.Labels["a"] != "1" || r.Config.Labels["b"] != "2" {
		t.Errorf("environment %v, labels %v", r.Config.Env, r.Config.Labels)
	}
	if r.Config.WorkingDir != "/srv" || r.Config.User != "joe" || r.Config.StopSignal != "INT" || len(r.Config.ExposedPorts) != 1 {
		t.Errorf("config %+v", r.Config)
	}
	if len(r.Mounts) != 1 || r.Mounts[0].Destination != "/data" || r.Config.Hostname != r.ID[:12] {
		t.Errorf("mounts %v, hostname %s", r.Mounts, r.Config.Hostname)
	}
	if r := inspect(func(r *CreateRequest) { r.Config.Entrypoint = []string{"sh"} }); r.Path != "sh" || len(r.Args) != 0 {
		t.Errorf("an entrypoint of its own: %s %v", r.Path, r.Args)
	}
	if r := inspect(func(r *CreateRequest) { r.Config.Entrypoint, r.Config.Cmd = []string{""}, []string{"ls"} }); r.Path != "ls" {
		t.Errorf("no entrypoint: %s", r.Path)
	}
}

func TestWhatCannotBeRunIsRefusedAtCreate(t *testing.T) {
	w := newWorld(t).run()
	yes := true
	for _, c := range []struct {
		text   string // what the error says
		kind   errdefs.Kind
		adjust func(c *apicontainer.Config, h *apicontainer.HostConfig)
	}{
		{"no command specified", errdefs.InvalidArgument, func(c *apicontainer.Config, _ *apicontainer.HostConfig) { c.Cmd = nil }},
		{"Minimum memory limit allowed is 6MB", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.Memory = 1 << 20 }},
		{"Nano CPUs and CPU Period cannot both be set", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.NanoCPUs, h.CPUPeriod = 1e9, 1000 }},
		{"larger than memory limit", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.Memory, h.MemorySwap = 64<<20, 32<<20 }},
		{"Invalid value 1-x for cpuset cpus", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.CpusetCpus = "1-x" }},
		{"Requested CPUs are not available - requested 0,9999, available: 0", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.CpusetCpus = "0,9999" }},
		{"Requested memory nodes are not available - requested 0-999, available: 0", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.CpusetMems = "0-999" }},
		{"PortBindings", errdefs.NotImplemented, func(_ *apicontainer.Config, h *apicontainer.HostConfig) {
			h.PortBindings = apinetwork.PortMap{apinetwork.MustParsePort("80/tcp"): {}}
		}},
		{"RestartPolicy", errdefs.NotImplemented, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.RestartPolicy.Name = "always" }},
		{"invalid restart policy", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.RestartPolicy.Name = "sometimes" }},
		{"HostConfig.Init", errdefs.NotImplemented, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.Init = &yes }},
		{"HostConfig.Runtime", errdefs.NotImplemented, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.Runtime = "kata" }},
		{"unknown capability", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.CapAdd = []string{"FLY"} }},
		{"invalid signal: NOPE", errdefs.InvalidArgument, func(c *apicontainer.Config, _ *apicontainer.HostConfig) { c.StopSignal = "NOPE" }},
		{"sysctl", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) {
			h.Sysctls = map[string]string{"vm.swappiness": "1"}
		}},
		{"invalid volume specification", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.Binds = []string{"/a:b"} }},
		{"destination can't be '/'", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.Binds = []string{"/a:/"} }},
		{"invalid mode: quick", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.Binds = []string{"/a:/b:quick"} }},
		{"Duplicate mount point: /b", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.Binds = []string{"/a:/b", "/c:/b/"} }},
		{"bind source path does not exist", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) {
			h.Mounts = []apimount.Mount{{Type: "bind", Source: "/does/not/exist", Target: "/b"}}
		}},
		{"unknown log opt 'colour'", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) {
			h.LogConfig = apicontainer.LogConfig{Type: "json-file", Config: map[string]string{"colour": "red"}}
		}},
		{"container:<name|id>", errdefs.InvalidArgument, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.NetworkMode = "container:" }},
		{"log drivers", errdefs.NotImplemented, func(_ *apicontainer.Config, h *apicontainer.HostConfig) { h.LogConfig.Type = "syslog" }},
	} {
		req := CreateRequest{Name: "web", Config: &apicontainer.Config{Image: "busybox", Cmd: []string{"x"}}, HostConfig: &apicontainer.HostConfig{}}
		c.adjust(req.Config, req.HostConfig)
		_, err := w.Create(t.Context(), req)
		if errdefs.KindOf(err) != c.kind || err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("want %s %q, got %v (%s)", c.kind, c.text, err, errdefs.KindOf(err))
		}
	}
	if list, _ := w.List(t.Context(), ListOptions{All: true}); len(list) != 0 {
		t.Errorf("%d containers", len(list))
	}
}

func TestTheContainerWhoseNetworkIsSharedIsMissedAtTheStart(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web", func(r *CreateRequest) { r.HostConfig.NetworkMode = "container:nope" })
	err := w.Start(t.Context(), id)
	if errdefs.CodeOf(err) != errdefs.NoSuchContainer || errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("got %v", err)
	}
	w.started("nope")
	if err := w.Start(t.Context(), id); err != nil {
		t.Errorf("when it is there: %v", err)
	}
}

func TestWhatIsAskedOfTheDefaultNetworkIsAskedOfTheBridge(t *testing.T) {
	w := newWorld(t).run()
	asked := &apinetwork.EndpointSettings{MacAddress: apinetwork.HardwareAddr{2, 0, 0, 0, 0, 1}}
	for _, mode := range []apicontainer.NetworkMode{"", "default", "bridge"} {
		found, err := w.Inspect(t.Context(), w.create("", func(r *CreateRequest) {
			r.HostConfig.NetworkMode = mode
			r.NetworkingConfig = &apinetwork.NetworkingConfig{EndpointsConfig: map[string]*apinetwork.EndpointSettings{"default": asked}}
		}), false)
		if err != nil {
			t.Fatal(err)
		}
		networks := found.NetworkSettings.Networks
		if len(networks) != 1 || networks["bridge"] == nil || networks["bridge"].MacAddress.String() != asked.MacAddress.String() {
			t.Errorf("mode %q: %v", mode, networks)
		}
	}
}

func TestAMissingSourceOfABindIsMadeAtTheStart(t *testing.T) {
	w := newWorld(t).run()
	source := filepath.Join(t.TempDir(), "a", "b")
	id := w.create("web", func(r *CreateRequest) { r.HostConfig.Binds = []string{source + ":/b:ro,rslave"} })
	if _, err := os.Stat(source); err == nil {
		t.Error("made at create")
	}
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(source); err != nil {
		t.Error(err)
	}
	config, err := os.ReadFile(filepath.Join(w.runDir(id), "config.json"))
	if err != nil || !strings.Contains(string(config), `"options":["rbind","ro","rslave"]`) {
		t.Errorf("%s %v", config, err)
	}
}

func TestVolumesAreFilledOnceAndGoWithTheirContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files their owner needs root")
	}
	w := newWorld(t).run()
	id := w.create("web", func(r *CreateRequest) { r.HostConfig.Binds = []string{"/data", "kept:/data2"} })
	for _, dir := range []string{"data", "data2"} {
		at := filepath.Join(w.layers.root, id, dir)
		if err := os.MkdirAll(at, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "file"), []byte("image"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	found, err := w.Inspect(t.Context(), id, false)
	if err != nil || len(found.Mounts) != 2 {
		t.Fatal(found.Mounts, err)
	}
	for _, m := range found.Mounts {
		if data, err := os.ReadFile(filepath.Join(m.Source, "file")); err != nil || string(data) != "image" {
			t.Errorf("%s: %q, %v", m.Destination, data, err)
		}
		if info, err := os.Stat(m.Source); err != nil || info.Mode().Perm() != 0o750 {
			t.Errorf("%s: mode %v, %v", m.Destination, info.Mode(), err)
		}
	}
	if err := w.Remove(t.Context(), id, RemoveOptions{Force: true, Volumes: true}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(w.Root, "volumes"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "kept" {
		t.Errorf("volumes left: %v, %v", entries, err)
	}
}

func TestSignals(t *testing.T) {
	for text, want := range map[string]int{"KILL": 9, "SIGTERM": 15, "sigusr1": 10, "9": 9, "64": 64, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63} {
		if got, err := parseSignal(text); err != nil || int(got) != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "65", "-1", "NOPE", "RTMIN+31", "RTMAX+1", "RTMIN3"} {
		if got, err := parseSignal(text); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestTopPicksTheContainersProcesses(t *testing.T) {
	table := "UID          PID CMD\nroot           1 /sbin/init splash\njoe         4242 sleep 9\n"
	top, err := pick([]byte(table), []int{4242})
	if err != nil || len(top.Processes) != 1 || !slices.Equal(top.Processes[0], []string{"joe", "4242", "sleep 9"}) {
		t.Errorf("%+v, %v", top, err)
	}
	own := listProcesses([]int{os.Getpid(), 1 << 30})
	if len(own.Processes) != 1 || len(own.Processes[0]) != len(own.Titles) || !strings.Contains(own.Processes[0][7], ".test") {
		t.Errorf("%+v", own)
	}
}
