package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/leftovers"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// dial connects to the supervisor of a stack.
func dial(t *testing.T, stack *harness.Stack) *api.Client {
	t.Helper()
	client, err := api.Dial(t.Context(), stack.SupervisorAddress())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// sleeping makes a bundle of dockerd's spec whose process lives until it is killed.
func sleeping(t *testing.T, dir, id string) string {
	t.Helper()
	spec := bundle.Docker(id)
	spec.Process.Args = []string{"/bin/sleep", "100000"}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	return dir
}

func remove(client *api.Client, id string) error {
	_, err := client.DeleteContainer(context.Background(), &api.DeleteContainerRequest{Id: id, Force: true})
	return err
}

// TestSupervisorCreates compares CreateContainer with the bare call that it makes.
func TestSupervisorCreates(t *testing.T) {
	stack := harness.New(t, harness.Options{NoImage: true})
	client := dial(t, stack)
	dir := harness.TempDir(t)
	runtime := bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun"), Root: filepath.Join(dir, "root")}
	bare, ours := leftovers.Prefix+"bare", leftovers.Prefix+"ours"
	bareDir, oursDir := sleeping(t, filepath.Join(dir, "bare"), bare), sleeping(t, filepath.Join(dir, "ours"), ours)
	contenders := []contender{
		{
			name: "ocirun run -d",
			once: func() error { return call(runtime, bareDir, "run", "--detach", bare) },
			tidy: func() error { return call(runtime, bareDir, "delete", "--force", bare) },
		},
		{
			name: "supervisor",
			once: func() error {
				_, err := client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: ours, BundlePath: oursDir})
				return err
			},
			tidy: func() error { return remove(client, ours) },
		},
	}
	// Between them the kernel takes network namespaces down, which a new one waits for.
	show(t, "CreateContainer of dockerd's spec, 150 ms idle between, goal 1.3 times ocirun", 60, 150*time.Millisecond, contenders)
}

// TestSupervisorExecs compares AddProcess and Wait with the bare call.
func TestSupervisorExecs(t *testing.T) {
	stack := harness.New(t, harness.Options{NoImage: true})
	client := dial(t, stack)
	dir := harness.TempDir(t)
	runtime := bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun"), Root: filepath.Join(dir, "root")}
	bare, ours := leftovers.Prefix+"bare", leftovers.Prefix+"ours"
	bareDir, oursDir := sleeping(t, filepath.Join(dir, "bare"), bare), sleeping(t, filepath.Join(dir, "ours"), ours)
	if err := call(runtime, bareDir, "run", "--detach", bare); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = call(runtime, bareDir, "delete", "--force", bare) })
	if _, err := client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: ours, BundlePath: oursDir}); err != nil {
		t.Fatal(err)
	}
	defer remove(client, ours)
	const pid = "true"
	contenders := []contender{
		{name: "ocirun exec", once: func() error { return call(runtime, bareDir, "exec", bare, "/bin/true") }},
		{
			name: "supervisor",
			once: func() error {
				_, err := client.AddProcess(t.Context(), &api.AddProcessRequest{Id: ours, Pid: pid, Args: []string{"/bin/true"}})
				if err == nil {
					_, err = client.Wait(t.Context(), &api.WaitRequest{Id: ours, Pid: pid})
				}
				return err
			},
			tidy: func() error {
				_, err := client.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: ours, Pid: pid})
				return err
			},
		},
	}
	show(t, "AddProcess and Wait of /bin/true, goal 1.5 times ocirun", 200, 0, contenders)
}

func crowdID(i int) string { return fmt.Sprintf("%scrowd-%d", leftovers.Prefix, i) }

// throng makes containers, all at once, and deletes them at the test's end.
func throng(t *testing.T, client *api.Client, many int) {
	t.Helper()
	dir := harness.TempDir(t)
	var dirs []string
	for i := range many {
		own := filepath.Join(dir, strconv.Itoa(i))
		if err := os.MkdirAll(own, 0o755); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			sleeping(t, own, "")
		}
		spec := bundle.Plain(crowdID(i))
		spec.Process.Args = []string{"/bin/sleep", "100000"}
		spec.Root.Path = filepath.Join(dir, "0", "rootfs")
		if err := bundle.WriteConfig(own, spec); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, own)
	}
	t.Cleanup(func() {
		for begin := 0; begin < many; begin += 10 {
			if err := together(min(10, many-begin), func(i int) error { return remove(client, crowdID(begin+i)) }); err != nil {
				t.Error(err)
			}
		}
	})
	err := together(many, func(i int) error {
		_, err := client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: crowdID(i), BundlePath: dirs[i]})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSupervisorMemory prints what a hundred idle containers cost.
func TestSupervisorMemory(t *testing.T) {
	many := 5
	if *full {
		many = 100
	}
	stack := harness.New(t, harness.Options{NoImage: true})
	client := dial(t, stack)
	before := available(t)
	throng(t, client, many)
	if *full {
		time.Sleep(10 * time.Second) // memory is given back when nothing happens for a while
	}
	used, ours := before-available(t), pss(t, stack.Supervisor.Pid)
	state, err := client.State(t.Context(), &api.StateRequest{})
	if err != nil || len(state.Containers) != many {
		t.Fatalf("%d containers, %v", len(state.GetContainers()), err)
	}
	if !*full {
		return
	}
	shims := 0
	for _, c := range state.Containers {
		shims += pss(t, int(c.ShimPid))
	}
	fmt.Printf("\n%d idle containers: supervisor %.1f MiB PSS, shim %.2f MiB PSS, machine %.2f MB each (MemAvailable)\n", many,
		float64(ours)/1024, float64(shims)/1024/float64(many), float64(used)*1024/1e6/float64(many))
}

// pss returns a process's proportional memory in KiB.
func pss(t *testing.T, pid int) int { return kib(t, fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:") }

// available returns the machine's free memory in KiB.
func available(t *testing.T) int { return kib(t, "/proc/meminfo", "MemAvailable:") }

func kib(t *testing.T, path, name string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name {
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal(errors.New("no " + name + " in " + path))
	return 0
}
