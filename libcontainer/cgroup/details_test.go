package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// files makes a directory that looks like a cgroup.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDetailsOfV1(t *testing.T) {
	c := At(Location{V1: map[string]string{
		"cpuacct": files(t, map[string]string{"cpuacct.usage_all": "cpu user system\n0 10 20\n1 30 40\n"}),
		"cpuset":  files(t, map[string]string{"cpuset.cpus": "0-1,3\n", "cpuset.mems": "0\n", "cpuset.sched_relax_domain_level": "-1\n"}),
	}})
	got, err := c.Details()
	want := Details{
		PerCPUUser: []uint64{10, 30}, PerCPUKernel: []uint64{20, 40},
		Cpuset: Cpuset{CPUs: []uint16{0, 1, 3}, Mems: []uint16{0}, Flags: map[string]int64{"sched_relax_domain_level": -1}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
}

func TestHugetlbStats(t *testing.T) {
	sizes := pageSizes()
	if len(sizes) == 0 {
		t.Skip("the kernel has no huge pages")
	}
	name := "hugetlb." + sizes[0]
	for version, at := range map[string]Location{
		"v1": {V1: map[string]string{"hugetlb": files(t, map[string]string{
			name + ".usage_in_bytes": "1\n", name + ".max_usage_in_bytes": "2\n", name + ".failcnt": "3\n", name + ".limit_in_bytes": "4\n",
		})}},
		"v2": {V2: files(t, map[string]string{name + ".current": "1\n", name + ".events": "max 3\n", name + ".max": "max\n"})},
	} {
		want := HugetlbStats{Usage: 1, Peak: 2, Failures: 3, Limit: 4}
		if version == "v2" {
			want.Peak, want.Limit = 0, Unlimited
		}
		stats, err := At(at).Stats()
		if err != nil || stats.Hugetlb[sizes[0]] != want {
			t.Errorf("%s: %v, %+v, want %+v", version, err, stats.Hugetlb, want)
		}
	}
}
