package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/links/*.txt anew")

const module = "github.com/engined/engined/"

// rooms says for each package which of ours it may import; its tests may too.
// A trailing /... stands for a folder and what is below. A package that is not here fails.
var rooms = map[string][]string{
	"cmd/engined":    {"engined", "engined/client"},
	"cmd/supervisor": {"supervisor", "runtime"},               // runtime: how shims are found is configured
	"cmd/shim":       {"shim", "proto/shim", "proto/logfile"}, // compressing a rotated log is a process of its own
	"cmd/ocirun":     {"libcontainer/...", "nsenter", "proto/errdefs"},

	"failpoint":           {}, // everybody may import it
	"heap":                {},
	"proto/errdefs":       {},
	"proto/supervisor/v1": {"proto/errdefs"},
	"proto/shim":          {"proto/errdefs"},
	"proto/logfile":       {"proto/errdefs", "proto/shim"},

	// engined: downward only. Nobody imports engined itself.
	"engined":             {"engined/...", "proto/errdefs"},
	"engined/api":         {"engined/container", "engined/image", "engined/network", "engined/registry", "engined/system", "engined/events", "engined/store", "proto/errdefs"},
	"engined/client":      {},
	"engined/container":   {"engined/spec", "engined/image", "engined/layer", "engined/network", "engined/task", "engined/logs", "engined/events", "engined/store", "proto/errdefs", "proto/shim"},
	"engined/system":      {"engined/events", "engined/store", "proto/errdefs"},
	"engined/image":       {"engined/layer", "engined/registry", "engined/events", "engined/store", "proto/errdefs"},
	"engined/registry":    {"proto/errdefs"},
	"engined/layer":       {"engined/layer/...", "engined/store", "proto/errdefs"},
	"engined/layer/quota": {"proto/errdefs"}, "engined/layer/subvolume": {"proto/errdefs"}, "engined/layer/thinpool": {"proto/errdefs"}, // drivers' kernel calls
	"engined/network": {"engined/events", "engined/store", "proto/errdefs"},
	"engined/spec":    {"proto/errdefs"},
	"engined/task":    {"proto/supervisor/v1", "proto/shim", "proto/errdefs"},
	"engined/logs":    {"proto/logfile", "proto/errdefs"},
	"engined/events":  {"proto/errdefs"},
	"engined/store":   {"proto/errdefs"},

	"supervisor": {"runtime", "heap", "proto/supervisor/v1", "proto/shim", "proto/errdefs", "libcontainer/cgroup", "libcontainer/plainjson"}, // stats are the cgroup's, a bundle's process its config.json's
	"runtime":    {"proto/shim", "proto/errdefs", "libcontainer/cgroup"},
	"shim":       {"heap", "proto/shim", "proto/logfile", "proto/errdefs"},

	"libcontainer":           {"libcontainer/...", "nsenter", "proto/errdefs"},
	"libcontainer/rootfs":    {"libcontainer/cgroup", "nsenter", "proto/errdefs"},
	"libcontainer/lsm":       {"nsenter", "proto/errdefs"},
	"libcontainer/seccomp":   {"proto/errdefs"},
	"libcontainer/resctrl":   {"proto/errdefs"},
	"libcontainer/netdevice": {"proto/errdefs"},
	"libcontainer/plainjson": {},
	"libcontainer/cgroup":    {"libcontainer/dbus", "proto/errdefs"},
	"nsenter":                {"proto/errdefs"},
	"libcontainer/criu":      {"proto/errdefs"},
	"libcontainer/dbus":      {"proto/errdefs"},

	// The black box: of the project it knows the contracts alone.
	"integration": {}, "integration/api": black, "integration/bundle": black, "integration/cli": black,
	"integration/cmd/leakcheck": black, "integration/cmd/stack": black, "integration/cmd/summary": {},
	"integration/debian": black, "integration/faults": black, "integration/harness": black, "integration/images": {}, "integration/leaks": black,
	"integration/leftovers": {}, "integration/oci": black, "integration/perf": black, "integration/power": black, "integration/rootfs": {},
	"integration/storage": black,
}

var black = []string{"integration/...", "proto/..."}

// forbidden says what a binary may not link, and why.
var forbidden = map[string]map[string]string{
	"shim": {
		"google.golang.org/": "grpc and protobuf: there is one shim for each container, its memory counts",
		"net/http":           "as grpc",
		"github.com/urfave/": "a command line of three words needs no parser",
		"encoding/gob":       "start-up time",
		"os/user":            "start-up time",
	},
	"ocirun": {
		"google.golang.org/": "start-up time",
		"net/http":           "start-up time",
		"net":                "start-up time, and no name service in a static binary",
		"encoding/gob":       "start-up time",
		"os/user":            "reads the host's users; the container's are meant",
		"crypto":             "start-up time, and 32 MiB of zeroes for its random numbers",
	},
	"supervisor": {
		module + "engined":                       "the supervisor knows tasks, not images or networks",
		module + "libcontainer/rootfs":           "the runtime is another process",
		"github.com/moby/":                       "no Docker API",
		"github.com/vishvananda/":                "no networks",
		"github.com/google/nftables":             "no networks",
		"github.com/google/go-containerregistry": "no images",
		"github.com/mattn/go-sqlite3":            "the journal is files",
	},
	"engined": {
		module + "libcontainer": "containers are made by ocirun",
		module + "supervisor":   "reached by proto/supervisor alone",
		module + "shim":         "reached by proto/shim alone",
	},
}

// goPackage is what this test reads of `go list -json`.
type goPackage struct {
	Dir, ImportPath             string
	Standard                    bool
	Imports                     []string
	TestImports, XTestImports   []string
	CgoFiles, CFiles, HFiles    []string
	SFiles, CXXFiles, SwigFiles []string
	GoFiles                     []string
	TestGoFiles, XTestGoFiles   []string
}

const tags = "netgo osusergo seccomp"

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=Dir,ImportPath,Standard,Imports,TestImports,XTestImports," +
		"CgoFiles,CFiles,HFiles,SFiles,CXXFiles,SwigFiles,GoFiles,TestGoFiles,XTestGoFiles", "-tags", tags}, args...)...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsFollowTheTable(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		seen[name] = true
		row, known := rooms[name]
		if !known {
			t.Errorf("%s has no row in rooms: say here what it may import", name)
			continue
		}
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			other, ours := strings.CutPrefix(imported, module)
			if other == "failpoint" { // a leaf that is nothing without its build tag
				continue
			}
			if ours && other != name && !allowed(row, other) {
				t.Errorf("%s imports %s, its row does not", name, other)
			}
		}
	}
	for name, row := range rooms {
		if !seen[name] {
			t.Logf("row without a package: %s", name)
		}
		for _, other := range row {
			if other == "engined" && name != "cmd/engined" {
				t.Errorf("%s may import engined itself: nobody may", name)
			}
		}
	}
}

func allowed(row []string, name string) bool {
	for _, entry := range row {
		if entry == name {
			return true
		}
		if folder, all := strings.CutSuffix(entry, "/..."); all && (name == folder || strings.HasPrefix(name, folder+"/")) {
			return true
		}
	}
	return false
}

// TestLinks compares what each binary links, outside the standard library, with
// a file that is reviewed like code: a new dependency is seen.
func TestLinks(t *testing.T) {
	for _, binary := range []string{"engined", "supervisor", "shim", "ocirun"} {
		t.Run(binary, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join("../cmd", binary)); err != nil {
				t.Skipf("there is no cmd/%s yet", binary)
			}
			var linked []string
			for _, p := range list(t, "-deps", "./cmd/"+binary) {
				mayLink(t, binary, p.ImportPath)
				if !p.Standard {
					linked = append(linked, p.ImportPath)
				}
			}
			slices.Sort(linked)
			golden(t, filepath.Join("testdata/links", binary+".txt"), linked)
		})
	}
}

func mayLink(t *testing.T, binary, path string) {
	t.Helper()
	for prefix, why := range forbidden[binary] {
		if path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/") && prefix != "net" {
			t.Errorf("%s links %s: %s", binary, path, why)
		}
	}
}

func golden(t *testing.T, file string, lines []string) {
	t.Helper()
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := strings.Fields(string(want))
	for _, path := range lines {
		if !slices.Contains(before, path) {
			t.Errorf("newly linked: %s", path)
		}
	}
	for _, path := range before {
		if !slices.Contains(lines, path) {
			t.Errorf("no longer linked: %s", path)
		}
	}
	if t.Failed() {
		t.Logf("if that is meant: go test ./integration -run Links -update")
	}
}

// TestForeignLanguages: C lives in nsenter, calls into C libraries in seccomp;
// the shim's signal handler is a few instructions of assembly.
func TestForeignLanguages(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		files := slices.Concat(p.CFiles, p.HFiles, p.CXXFiles, p.SwigFiles)
		if name != "shim" {
			files = append(files, p.SFiles...)
		}
		if len(files) > 0 && name != "nsenter" {
			t.Errorf("%s has %v; C belongs into nsenter", name, files)
		}
		if len(p.CgoFiles) > 0 && name != "nsenter" && name != "libcontainer/seccomp" {
			t.Errorf("%s uses cgo in %v", name, p.CgoFiles)
		}
	}
}
