package oci

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/leftovers"
)

// look is the program of a case that does not bring its own: it prints what a
// process can see of how it was started.
const look = `
id
pwd
hostname
echo args "$0" "$@"
env | sort
grep -E '^(Umask|Groups|NoNewPrivs|Seccomp|Cap...):' /proc/self/status
cat /proc/self/oom_score_adj /proc/self/timerslack_ns
sed 's/ *$//' /proc/self/limits
ls /proc/self/fd | wc -l
cut -d' ' -f2-4 /proc/mounts | sort
ls /dev
ls /sys/class/net
cat /proc/1/comm
`

// runtimes returns ocirun and the references; the test is skipped without one.
func runtimes(t *testing.T) (ocirun bundle.Runtime, references []bundle.Runtime, dir string) {
	t.Helper()
	harness.NeedRoot(t)
	dir = harness.TempDir(t)
	if references = bundle.References(dir); len(references) == 0 {
		t.Skip("neither runc nor crun is installed")
	}
	return bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun"), Root: filepath.Join(dir, "root-ocirun")}, references, dir
}

func TestBundlesGiveTheSameResult(t *testing.T) {
	ocirun, references, dir := runtimes(t)
	before, err := leftovers.Look()
	if err != nil {
		t.Fatal(err)
	}
	explained := readDifferences(t)
	t.Run("of", func(t *testing.T) {
		for _, test := range append(slices.Clip(cases), generated()...) {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				ours := run(t, ocirun, filepath.Join(dir, test.name), test)
				var theirs []bundle.Output
				for _, reference := range references {
					theirs = append(theirs, run(t, reference, filepath.Join(dir, test.name), test))
				}
				for _, line := range difference(ours, theirs) {
					if !explained.covers(test.name, line) {
						t.Errorf("ocirun alone (+) or the references alone (-): %s", line)
					}
				}
			})
		}
	})
	explained.stale(t)
	if err := leftovers.Await(deadline(), leftovers.Since(before, filepath.Join(dir, "root-ocirun"))); err != nil {
		t.Error(err)
	}
}

// run makes the case's bundle anew, looks at its container from outside and,
// in another new bundle, runs it once.
func run(t *testing.T, runtime bundle.Runtime, dir string, test testCase) bundle.Output {
	t.Helper()
	id := filepath.Base(filepath.Dir(dir)) + "-" + runtime.Name + "-" + test.name // new each time
	seen := created(t, runtime, dir, id, unpack(t, dir, id, test))
	unpack(t, dir, id, test)
	out, err := runtime.Call(dir, "run", id)
	if err != nil {
		t.Fatalf("%s: %v", runtime.Name, err)
	}
	if runtime.Name == "ocirun" {
		check(t, out, test)
	}
	if runtime.Name != "ocirun" {
		sweep(t, id)
		unmountBelow(t, dir)
	}
	if gone, err := runtime.Call(dir, "state", id); err != nil || gone.Status == 0 {
		t.Errorf("%s state after run: %v %s", runtime.Name, err, gone.Stdout)
	}
	out.Stdout += strings.Join(append(seen, ""), "\n")
	return out
}

// unpack makes the case's bundle, in place of what a run before left.
func unpack(t *testing.T, dir, id string, test testCase) *specs.Spec {
	t.Helper()
	spec := bundle.Plain(id)
	spec.Process.Args = []string{"/bin/sh", "-c", look}
	if test.change != nil {
		test.change(spec)
	}
	unmountBelow(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	if test.prepare != nil {
		test.prepare(t, dir)
	}
	return spec
}

// sweep removes the empty cgroups that crun leaves when it fails.
func sweep(t *testing.T, id string) {
	t.Helper()
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + id)
	if err != nil {
		t.Fatal(err)
	}
	for _, cgroup := range append(left, "/sys/fs/cgroup/"+id) { // the last on pure v2
		if err := os.Remove(cgroup); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

// unmountBelow takes away what runc and crun mount for a container without a
// mount namespace, and leave.
func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for _, line := range slices.Backward(lines) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[4], dir+"/") {
			if err := syscall.Unmount(fields[4], syscall.MNT_DETACH); err != nil {
				t.Error(fields[4], err)
			}
		}
	}
}

// check holds ocirun to what the case itself says.
func check(t *testing.T, out bundle.Output, test testCase) {
	t.Helper()
	if out.Status != test.status {
		t.Errorf("status %d, want %d\n%s%s", out.Status, test.status, out.Stdout, out.Stderr)
	}
	if said := strings.ReplaceAll(out.Stderr, `\"`, `"`); !strings.Contains(said, test.stderr) {
		t.Errorf("its message does not name %q: %s", test.stderr, out.Stderr)
	}
}

// unequal matches what may differ between runs.
var unequal = regexp.MustCompile(leftovers.Prefix + `\d+-(ocirun|runc|crun)|\b\d+ -> |ino=\d+`)

// difference returns, marked +, what no reference shows, and marked -, what all
// of them show and ocirun does not. What a runtime says on stderr is its own
// business; that it says something is not.
func difference(ours bundle.Output, theirs []bundle.Output) []string {
	if !slices.ContainsFunc(theirs, func(o bundle.Output) bool { return o.Status == ours.Status }) {
		return []string{fmt.Sprint("+exit status ", ours.Status)} // the rest follows from it
	}
	own := facts(ours)
	count := map[string]int{} // fact → references that show it
	for _, reference := range theirs {
		for fact := range facts(reference) {
			count[fact]++
		}
	}
	var lines []string
	for fact := range own {
		if count[fact] == 0 {
			lines = append(lines, "+"+fact)
		}
	}
	for fact, shown := range count {
		if shown == len(theirs) && !own[fact] {
			lines = append(lines, "-"+fact)
		}
	}
	slices.Sort(lines)
	return lines
}

// facts of an answer: its status, whether it complains, and the lines of its
// output, a line that comes again being another fact.
func facts(out bundle.Output) map[string]bool {
	found := map[string]bool{fmt.Sprint("exit status ", out.Status): true, fmt.Sprint("says something on stderr: ", out.Stderr != ""): true}
	for _, line := range strings.Split(unequal.ReplaceAllString(out.Stdout, "X"), "\n") {
		for found[line] {
			line += " (again)"
		}
		found[line] = true
	}
	return found
}

// difference table: CASE | line as a regular expression | why. CASE * is all.
type explanation struct {
	name, why string
	line      *regexp.Regexp
	used      bool
}

type table struct {
	rows []*explanation
	lock sync.Mutex // of used in the rows
}

func readDifferences(t *testing.T) *table {
	t.Helper()
	text, err := os.ReadFile("differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := &table{}
	for _, line := range strings.Split(string(text), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, " | ")
		if len(fields) != 3 {
			t.Fatalf("differences.txt: %q is not CASE | LINE | why", line)
		}
		pattern, err := regexp.Compile("^" + fields[1] + "$")
		if err != nil {
			t.Fatalf("differences.txt: %v", err)
		}
		rows.rows = append(rows.rows, &explanation{name: fields[0], line: pattern, why: fields[2]})
	}
	return rows
}

// covers reports whether a row explains the line, and marks it used.
func (rows *table) covers(name, line string) bool {
	rows.lock.Lock()
	defer rows.lock.Unlock()
	for _, row := range rows.rows {
		if (row.name == "*" || row.name == name) && row.line.MatchString(line) {
			row.used = true
			return true
		}
	}
	return false
}

// stale fails for rows that explained nothing, if all cases were run.
func (rows *table) stale(t *testing.T) {
	t.Helper()
	if only := flag.Lookup("test.run"); only != nil && strings.Contains(only.Value.String(), "/of/") {
		return
	}
	for _, row := range rows.rows {
		if !row.used && row.here(t) {
			t.Errorf("differences.txt explains what does not differ here: %s | %s | %s", row.name, row.line, row.why)
		}
	}
}

// here reports whether a row speaks of this host.
func (e *explanation) here(t *testing.T) bool {
	switch {
	case strings.HasPrefix(e.why, "on v1 "):
		return !pureV2()
	case strings.HasPrefix(e.why, "on v2 "):
		return pureV2()
	case strings.HasPrefix(e.why, "where limits can be raised "):
		return hasCapability(t, unix.CAP_SYS_RESOURCE)
	}
	return true
}

// pureV2 reports whether the host has no cgroup v1.
func pureV2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// hasCapability reports whether this process has it.
func hasCapability(t *testing.T, number uint) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nCapEff:\t")
	text, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return mask&(1<<number) != 0
}
