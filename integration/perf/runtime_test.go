package perf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/leftovers"
	"github.com/engined/engined/integration/rootfs"
)

// TestRuntimes measures `RUNTIME run` of /bin/true.
func TestRuntimes(t *testing.T) {
	runtimes, dir := allRuntimes(t)
	sizes(runtimes)
	for _, kind := range []struct {
		name string
		spec func(id string) *specs.Spec
	}{{"plain spec", bundle.Plain}, {"dockerd's spec", bundle.Docker}} {
		contenders := runsOf(t, filepath.Join(dir, kind.name[:5]), runtimes, kind.spec)
		show(t, "run of /bin/true, "+kind.name+", back to back", 100, 0, contenders)
		show(t, "run of /bin/true, "+kind.name+", 150 ms idle between", 40, 150*time.Millisecond, contenders)
	}
}

// runsOf makes one bundle for each runtime, so that none finds its mount points
// made by another.
func runsOf(t *testing.T, dir string, runtimes []bundle.Runtime, spec func(string) *specs.Spec) []contender {
	t.Helper()
	var contenders []contender
	for _, runtime := range runtimes {
		own := filepath.Join(dir, runtime.Name)
		id := leftovers.Prefix + "perf-" + runtime.Name
		if err := bundle.Make(own, spec(id)); err != nil {
			t.Fatal(err)
		}
		contenders = append(contenders, contender{name: runtime.Name, once: func() error {
			out, err := runtime.Call(own, "run", id)
			if err == nil && out.Status != 0 {
				err = fmt.Errorf("status %d: %s", out.Status, out.Stderr)
			}
			return err
		}})
	}
	return contenders
}

func sizes(runtimes []bundle.Runtime) {
	binaries := map[string]string{}
	for _, runtime := range runtimes {
		binaries[runtime.Name] = runtime.Path
	}
	for _, name := range []string{"engined", "supervisor", "shim"} {
		binaries[name] = harness.Binary(name)
	}
	for _, name := range []string{"engined", "supervisor", "shim", "ocirun", "runc", "crun"} {
		stat, err := os.Stat(binaries[name])
		if err == nil && *full {
			fmt.Printf("  %-12s %6.1f MB on disk\n", name, float64(stat.Size())/1e6)
		}
	}
}

// TestPeakMemory prints what the largest process of a run had resident.
func TestPeakMemory(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.TempDir(t)
	factor := rssFactor(t)
	runtimes := append([]bundle.Runtime{{Name: "ocirun", Path: harness.Binary("ocirun"), Root: filepath.Join(dir, "root-ocirun")}},
		bundle.References(dir)...)
	for _, runtime := range runtimes {
		id := leftovers.Prefix + "rss-" + runtime.Name
		own := filepath.Join(dir, runtime.Name)
		if err := bundle.Make(own, bundle.Docker(id)); err != nil {
			t.Fatal(err)
		}
		var peak int64
		for range 3 {
			peak = max(peak, peakRSS(t, own, append([]string{runtime.Path, "--root", runtime.Root}, "run", id)...)/factor)
		}
		if *full {
			fmt.Printf("  %-12s %6.1f MB peak resident, run of dockerd's spec\n", runtime.Name, float64(peak)/1024)
		}
	}
}

// peakRSS has busybox start the command: ru_maxrss counts what the caller had
// before its exec, and a Go test has more than any runtime.
func peakRSS(t *testing.T, dir string, argv ...string) (kib int64) {
	t.Helper()
	cmd := exec.Command(rootfs.Busybox, append([]string{"time", "-f", "%M"}, argv...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	lines := strings.Fields(string(out))
	if err != nil || len(lines) == 0 {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	if kib, err = strconv.ParseInt(lines[len(lines)-1], 10, 64); err != nil {
		t.Fatal(err)
	}
	return kib
}

// rssFactor finds out whether this busybox takes ru_maxrss for pages, as many
// releases do: then a program with a 64 MiB buffer seems to have 256.
func rssFactor(t *testing.T) int64 {
	t.Helper()
	seen := peakRSS(t, "/", rootfs.Busybox, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
	return max(1, seen/(64<<10))
}
