package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/cgroup"
)

// ocirun runs a command line in this process.
func ocirun(args ...string) (status int, stdout, stderr string) {
	var out, errors bytes.Buffer
	status = run(append([]string{"ocirun"}, args...), &out, &errors)
	return status, out.String(), errors.String()
}

func TestErrorsAreLoggedAsRuncDoes(t *testing.T) {
	root := t.TempDir()
	status, _, stderr := ocirun("--root", root, "state", "nope")
	if status != 1 || !strings.HasPrefix(stderr, `time="`) || !strings.HasSuffix(stderr, ` level=error msg="container does not exist"`+"\n") {
		t.Errorf("%d %q", status, stderr)
	}
	log := filepath.Join(root, "log")
	status, _, stderr = ocirun("--root", root, "--log", log, "--log-format", "json", "state", "nope")
	if status != 1 || stderr != "container does not exist\n" {
		t.Errorf("%d %q", status, stderr)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var line map[string]string
	if err := json.Unmarshal(data, &line); err != nil {
		t.Fatal(err)
	}
	delete(line, "time")
	want := map[string]string{"level": "error", "msg": "container does not exist", "kind": "not-found", "code": "no-such-container", "subject": "nope"}
	for key, value := range want {
		if line[key] != value {
			t.Errorf("%s is %q, want %q", key, line[key], value)
		}
	}
	if len(line) != len(want) {
		t.Errorf("%v", line)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		text   string
	}{
		{[]string{"state"}, 1, `: \"state\" requires exactly 1 argument(s)`},
		{[]string{"state", "a", "b"}, 1, `: \"state\" requires exactly 1 argument(s)`},
		{[]string{"kill"}, 1, `: \"kill\" requires a minimum of 1 argument(s)`},
		{[]string{"state", "--foo"}, 1, "flag provided but not defined: -foo"},
		{[]string{"--foo", "state"}, 1, "flag provided but not defined: -foo"},
		{[]string{"exec"}, 1, `: \"exec\" requires a minimum of 1 argument(s)`},
		{[]string{"exec", "x"}, 255, "container does not exist"},
		{[]string{"exec", "x", "sh"}, 255, "container does not exist"},
		{[]string{"exec", "--cgroup", "a", "--cgroup", "b", "x", "sh"}, 255, "container does not exist"},
		{[]string{"nope"}, 3, "No help topic for 'nope'"},
		{[]string{"list", "-f", "xml"}, 1, "invalid format option"},
		{[]string{"--log-format", "xml", "list"}, 1, "invalid log-format: xml"},
		{[]string{"--rootless", "maybe", "create", "x"}, 1, `--rootless: expected true, false or auto, got \"maybe\"`},
		{[]string{"events", "--interval", "-1s", "x"}, 1, "duration interval must be greater than 0"},
		{[]string{"update", "--l3-cache-schema", "x", "x"}, 1, "container does not exist"},
	} {
		status, _, stderr := ocirun(append([]string{"--root", t.TempDir()}, c.args...)...)
		if status != c.status || !strings.Contains(stderr, c.text) {
			t.Errorf("%q: %d %q", c.args, status, stderr)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	_, version, _ := ocirun("--version")
	if !strings.HasPrefix(version, "ocirun version ") || !strings.Contains(version, "\nspec: "+specs.Version+"\n") || !strings.Contains(version, "\nlibseccomp: ") {
		t.Errorf("%q", version)
	}
	_, help, _ := ocirun("--help")
	for _, c := range commands {
		if !strings.Contains(help, "\n   "+c.name+" ") {
			t.Errorf("help lacks %s", c.name)
		}
		status, out, _ := ocirun(c.name, "--help")
		if status != 0 || !strings.Contains(out, "ocirun "+c.name) {
			t.Errorf("%s --help: %d %q", c.name, status, out)
		}
	}
}

func TestListOfNothing(t *testing.T) {
	status, out, _ := ocirun("--root", t.TempDir(), "list")
	if status != 0 || out != "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n" {
		t.Errorf("%d %q", status, out)
	}
	if status, _, _ := ocirun("--root", "/nonexistent/root", "list"); status != 1 {
		t.Error("a root that is not there passed")
	}
}

func TestSpecIsWrittenOnce(t *testing.T) {
	dir := t.TempDir()
	if status, _, stderr := ocirun("spec", "-b", dir); status != 0 {
		t.Fatal(stderr)
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil || spec.Version != specs.Version {
		t.Errorf("%s, %v", spec.Version, err)
	}
	if status, _, stderr := ocirun("spec", "-b", dir); status != 1 || !strings.Contains(stderr, "File config.json exists. Remove it first") {
		t.Errorf("%d %q", status, stderr)
	}
}

func TestUpdateOptions(t *testing.T) {
	f := newFlags("update")
	list := bindLimits(f)
	if err := f.parse(strings.Fields("--memory 512m --memory-swap -1 --cpu-share 512 --cpuset-cpus 0 --pids-limit 5 --blkio-weight 20 --cpu-idle 1")); err != nil {
		t.Fatal(err)
	}
	var r specs.LinuxResources
	if err := list.apply(f, &r); err != nil {
		t.Fatal(err)
	}
	if *r.Memory.Limit != 512<<20 || *r.Memory.Swap != -1 || *r.CPU.Shares != 512 || r.CPU.Cpus != "0" || *r.Pids.Limit != 5 || *r.BlockIO.Weight != 20 || *r.CPU.Idle != 1 {
		t.Errorf("%+v", r)
	}
	bad := newFlags("update")
	list = bindLimits(bad)
	if err := bad.parse([]string{"--cpu-quota", "much"}); err != nil {
		t.Fatal(err)
	}
	if err := list.apply(bad, &r); err == nil || !strings.Contains(err.Error(), "invalid value for cpu-quota") {
		t.Errorf("%v", err)
	}
}

func TestStatsHaveRuncsShape(t *testing.T) {
	text, err := json.Marshal(newStatsData(&cgroup.Stats{CPU: cgroup.CPUStats{Pressure: &cgroup.Pressure{}}}, &cgroup.Details{
		PerCPUKernel: []uint64{1}, Cpuset: cgroup.Cpuset{CPUs: []uint16{0, 1}, Flags: map[string]int64{"mem_hardwall": 1}},
	}, false))
	if err != nil {
		t.Fatal(err)
	}
	none := cgroup.MemoryUse{Limit: cgroup.Unlimited}
	if one, two := newMemoryData(none, true).Limit, newMemoryData(none, false).Limit; one != 9223372036854771712 || two != math.MaxUint64 {
		t.Errorf("no limit is %d on v1, %d on v2", one, two)
	}
	for _, part := range []string{
		`"percpu_kernel":[1]`, `"cpuset":{"cpu_exclusive":0,"cpus":[0,1],"mem_exclusive":0,"mem_hardwall":1,`,
		`"psi":{"some":{"avg10":0,"avg60":0,"avg300":0,"total":0},"full":{`, `"hugetlb":{}`, `"intel_rdt":{}`, `"network_interfaces":null`,
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("%s is not in %s", part, text)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1024": 1024, "12b": 12, "512m": 512 << 20, "512M": 512 << 20, "1.5g": 3 << 29, "2 GiB": 2 << 30, "1kb": 1024, "3tb": 3 << 40} {
		if got, err := parseBytes(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "m", "-5", "1x", "1mm", "1ib5", "NaN", "1e30p", "1kk", "1bb"} {
		if n, err := parseBytes(text); err == nil {
			t.Errorf("%q is %d", text, n)
		}
	}
}

func TestSubCgroupsAreRead(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // "controller=path ", or what the error says
	}{
		{[]string{"sub"}, "=sub "},
		{[]string{"cpu,memory:a", "pids:b"}, "cpu=a memory=a pids=b "},
		{[]string{"a", "b"}, "missing <controller>: prefix"},
		{[]string{"cpu:a", "cpu:b"}, "controller cpu specified multiple times"},
		{[]string{"cpu:a:b"}, "invalid --cgroup argument: cpu:a:b"},
	} {
		paths, err := subCgroups(c.args)
		got := ""
		for _, controller := range slices.Sorted(maps.Keys(paths)) {
			got += controller + "=" + paths[controller] + " "
		}
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
}
