package oci

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
)

var withReferences = flag.Bool("references", false, "run the validation programs with runc and crun, too, and print what they pass")

// programTime bounds one validation program; the slowest waits 13 seconds.
var programTime = bundle.Patience(time.Minute)

// programsVariable names a directory with the programs, runtimetest and their
// root file system, for machines that are too slow to compile them (vm.sh).
const programsVariable = "ENGINED_VALIDATION_PROGRAMS"

const runtimeTools = "github.com/opencontainers/runtime-tools"

// TestValidationPrograms runs the programs of the OCI runtime-tools. Those that
// are not clean must be in validation.txt.
func TestValidationPrograms(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.TempDir(t)
	if err := os.Chmod(dir, 0o755); err != nil { // for the root of user namespaces
		t.Fatal(err)
	}
	programs := placePrograms(t, dir)
	rows := readVerdicts(t, programs)
	if pureV2() {
		programs = slices.DeleteFunc(programs, rows.needV1)
		t.Logf("%d programs can run on pure cgroup v2", len(programs))
	}
	mounted, restore := bundle.MountControllers("hugetlb", "net_cls", "net_prio")
	t.Logf("v1 hierarchies mounted for the programs that need them: %q", mounted)
	t.Cleanup(func() {
		if err := restore(); err != nil {
			t.Error(err)
		}
	})
	runtimes := []bundle.Runtime{{Name: "ocirun", Path: harness.Binary("ocirun"), Root: filepath.Join(dir, "root-ocirun")}}
	if *withReferences {
		runtimes = append(runtimes, bundle.References(dir)...)
	}
	for _, runtime := range runtimes {
		failed := runPrograms(t, dir, runtime, programs)
		t.Logf("%s passes %d of %d programs clean", runtime.Name, len(programs)-len(failed), len(programs))
		if runtime.Name == "ocirun" {
			rows.compare(t, failed, programs, func(name string) string {
				defer removeAll(t, dir, runtime)
				return runProgram(dir, wrapperOf(dir, runtime), name)
			})
			continue
		}
		for _, name := range programs {
			if said, bad := failed[name]; bad {
				t.Logf("%s: %s: %s", runtime.Name, name, said)
			}
		}
	}
}

const rootfsArchive = "rootfs-amd64.tar.gz"

// placePrograms puts the programs into dir and returns their names.
func placePrograms(t *testing.T, dir string) []string {
	t.Helper()
	built := os.Getenv(programsVariable)
	if built == "" {
		built = filepath.Join(dir, "built")
		buildPrograms(t, built)
	}
	if err := os.Symlink(built, filepath.Join(dir, "programs")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(built)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); name != "runtimetest" && name != rootfsArchive {
			names = append(names, name)
			continue
		}
		// The programs look for these two where they are started.
		data, err := os.ReadFile(filepath.Join(built, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, entry.Name()), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if len(entries) != len(names)+2 {
		t.Fatalf("%s lacks runtimetest or %s", built, rootfsArchive)
	}
	return names
}

// buildPrograms makes the directory that programsVariable may name.
func buildPrograms(t *testing.T, dir string) {
	t.Helper()
	gotool := func(args ...string) (string, error) {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = "validation", append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := gotool("mod", "download"); err != nil {
		t.Skipf("the validation programs cannot be had: %v\n%s", err, out)
	}
	if out, err := gotool("build", "-o", dir+"/", runtimeTools+"/cmd/runtimetest", runtimeTools+"/validation/..."); err != nil {
		t.Fatalf("building the validation programs: %v\n%s", err, out)
	}
	source, err := gotool("list", "-m", "-f", "{{.Dir}}", runtimeTools)
	if err != nil {
		t.Fatal(source, err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(source), rootfsArchive))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, rootfsArchive), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// runPrograms runs all programs and returns what those say that are not clean.
// They wait more than they work, so some run beside each other; those that
// share a cgroup's name do not.
func runPrograms(t *testing.T, dir string, runtime bundle.Runtime, programs []string) map[string]string {
	t.Helper()
	wrapper := wrapperOf(dir, runtime)
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s \"$@\"\n", runtime.Path, runtime.Root)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	failed := map[string]string{}
	var mu sync.Mutex // guards failed
	lanes := make([]chan string, 4)
	var wait sync.WaitGroup
	for i := range lanes {
		lanes[i] = make(chan string, len(programs))
		wait.Go(func() {
			for name := range lanes[i] {
				said := runProgram(dir, wrapper, name)
				if said != "" {
					mu.Lock()
					failed[name] = said
					mu.Unlock()
				}
			}
		})
	}
	next := 0
	for _, name := range programs {
		lane := 0
		if !strings.Contains(name, "cgroups") && !strings.Contains(name, "resources") {
			next = next%(len(lanes)-1) + 1
			lane = next
		}
		lanes[lane] <- name
	}
	for _, lane := range lanes {
		close(lane)
	}
	wait.Wait()
	removeAll(t, dir, runtime)
	return failed
}

func wrapperOf(dir string, runtime bundle.Runtime) string {
	return filepath.Join(dir, "run-"+runtime.Name)
}

var notOK = regexp.MustCompile(`(?m)^\s*not ok .*`)

// runProgram returns "" if the program is clean: status 0 and no "not ok".
func runProgram(dir, runtime, name string) string {
	ctx, cancel := context.WithTimeout(context.Background(), programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "programs", name))
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "RUNTIME="+runtime, "TMPDIR="+dir)
	cmd.WaitDelay = time.Second
	// Whatever a runtime mounts and leaves is gone with the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if name == "process_capabilities" {
		withAllCapabilities(cmd.SysProcAttr)
	}
	err := cmd.Run()
	bad := notOK.FindAllString(stdout.String(), -1)
	if err == nil && len(bad) == 0 {
		return ""
	}
	return fmt.Sprintf("%v %q %s", err, bad, strings.TrimSpace(stderr.String()))
}

// withAllCapabilities starts a process as root of a new user namespace, where it
// has every capability of the kernel, also those that the tests' own bounding
// set lacks. All ids are what they are outside but the last, by which a runtime
// tells the namespace from the first one.
func withAllCapabilities(attributes *syscall.SysProcAttr) {
	ids := []syscall.SysProcIDMap{{Size: 1<<32 - 2}}
	attributes.Cloneflags, attributes.Unshareflags = syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS, 0
	attributes.UidMappings, attributes.GidMappings = ids, ids
	attributes.GidMappingsEnableSetgroups = true
}

// removeAll removes the containers that programs left.
func removeAll(t *testing.T, dir string, runtime bundle.Runtime) {
	t.Helper()
	out, err := runtime.Call(dir, "list", "-q")
	if err != nil {
		t.Fatal(err)
	}
	for id := range strings.FieldsSeq(out.Stdout) {
		if out, err := runtime.Call(dir, "delete", "--force", id); err != nil || out.Status != 0 {
			t.Errorf("removing %s: %v %s", id, err, out.Stderr)
		}
	}
}

// verdict is a row of validation.txt.
type verdict struct{ program, where string }

type verdicts []verdict

func readVerdicts(t *testing.T, programs []string) (rows verdicts) {
	t.Helper()
	text, err := os.ReadFile("validation.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, " | ")
		if len(fields) != 3 || !slices.ContainsFunc(programs, verdict{program: fields[0]}.covers) {
			t.Fatalf("validation.txt: %q is not PROGRAM | WHERE | why", line)
		}
		rows = append(rows, verdict{fields[0], fields[1]})
	}
	return rows
}

// covers reports whether a row, whose name may be a pattern, is of a program.
func (v verdict) covers(program string) bool {
	matches, err := path.Match(v.program, program)
	return err == nil && matches
}

func (rows verdicts) needV1(program string) bool {
	return slices.ContainsFunc(rows, func(v verdict) bool { return v.where == "v1" && v.covers(program) })
}

// compare holds what failed against the rows, in both directions. The programs
// wait for fixed times: one that fails on a busy machine gets other tries,
// alone.
func (rows verdicts) compare(t *testing.T, failed map[string]string, programs []string, again func(name string) string) {
	t.Helper()
	for _, name := range programs {
		at := slices.IndexFunc(rows, func(v verdict) bool { return v.where != "v1" && v.covers(name) })
		if at >= 0 {
			if rows[at].where == "everywhere" && failed[name] == "" {
				t.Errorf("validation.txt explains %s, which is clean", name)
			}
			continue
		}
		said := failed[name]
		for try := 0; said != "" && try < 3; try++ {
			t.Logf("trying %s again: %s", name, said)
			said = again(name)
		}
		if said != "" {
			t.Errorf("%s is not clean: %s", name, said)
		}
	}
}
