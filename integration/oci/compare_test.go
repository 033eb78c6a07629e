package oci

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
cat /proc/self/oom_score_adj
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
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			ours := run(t, ocirun, filepath.Join(dir, test.name), test)
			var found []string // differences from each reference
			for _, reference := range references {
				theirs := run(t, reference, filepath.Join(dir, test.name), test)
				if lines := difference(ours, theirs); lines != "" {
					found = append(found, reference.Name+":\n"+lines)
				}
			}
			judge(t, explained, test.name, len(found) == len(references), strings.Join(found, ""))
		})
	}
	if err := leftovers.Await(deadline(), leftovers.Since(before, filepath.Join(dir, "root-ocirun"))); err != nil {
		t.Error(err)
	}
}

// run makes the case's bundle anew and runs it once.
func run(t *testing.T, runtime bundle.Runtime, dir string, test testCase) bundle.Output {
	t.Helper()
	id := leftovers.Prefix + runtime.Name + "-" + test.name
	spec := bundle.Plain(id)
	spec.Process.Args = []string{"/bin/sh", "-c", look}
	if test.change != nil {
		test.change(spec)
	}
	if err := os.RemoveAll(dir); err != nil { // of the runtime before; nothing is mounted there by now
		t.Fatal(err)
	}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	if test.prepare != nil {
		test.prepare(t, dir)
	}
	out, err := runtime.Call(dir, "run", id)
	if err != nil {
		t.Fatalf("%s: %v", runtime.Name, err)
	}
	if runtime.Name == "ocirun" {
		check(t, out, test)
	}
	if gone, err := runtime.Call(dir, "state", id); err != nil || gone.Status == 0 {
		t.Errorf("%s state after run: %v %s", runtime.Name, err, gone.Stdout)
	}
	return out
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
var unequal = regexp.MustCompile(leftovers.Prefix + `(ocirun|runc|crun)|\b\d+ -> |ino=\d+`)

// difference returns the lines that only one of two outputs has. What a
// runtime says on stderr is its own business; that it says something is not.
func difference(ours, theirs bundle.Output) string {
	if ours.Status != theirs.Status {
		return fmt.Sprintf("status %d, not %d\nstderr: %s\nreference's: %s\n", ours.Status, theirs.Status, ours.Stderr, theirs.Stderr)
	}
	if (ours.Stderr == "") != (theirs.Stderr == "") {
		return fmt.Sprintf("stderr: %q, not %q\n", ours.Stderr, theirs.Stderr)
	}
	a := strings.Split(unequal.ReplaceAllString(ours.Stdout, "X"), "\n")
	b := strings.Split(unequal.ReplaceAllString(theirs.Stdout, "X"), "\n")
	var out strings.Builder
	for _, line := range only(a, b) {
		fmt.Fprintf(&out, "+%s\n", line)
	}
	for _, line := range only(b, a) {
		fmt.Fprintf(&out, "-%s\n", line)
	}
	return out.String()
}

func only(these, others []string) []string {
	count := map[string]int{}
	for _, line := range others {
		count[line]++
	}
	var left []string
	for _, line := range these {
		if count[line]--; count[line] < 0 {
			left = append(left, line)
		}
	}
	return left
}

// readDifferences reads the table: a case's name, then the reason.
func readDifferences(t *testing.T) map[string]string {
	t.Helper()
	file, err := os.Open("differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	table := map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, why, found := strings.Cut(line, " ")
		if !found {
			t.Fatalf("differences.txt: %s has no reason", name)
		}
		table[name] = why
	}
	return table
}

// judge fails the case if ocirun agrees with no reference and nothing says why.
func judge(t *testing.T, explained map[string]string, name string, differs bool, lines string) {
	t.Helper()
	why, known := explained[name]
	if differs && !known {
		t.Errorf("ocirun agrees with no reference (+ ocirun alone, - reference alone):\n%s", lines)
	}
	if !differs && known {
		t.Errorf("agrees with a reference; take away from differences.txt: %s", why)
	}
}
