package system

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	apisystem "github.com/moby/moby/api/types/system"
)

type fake struct{ away bool }

func (fake) Counts() (running, paused, stopped int) { return 1, 2, 3 }
func (fake) Name() string                           { return "overlay2" }
func (fake) Status() [][2]string                    { return nil }
func (f fake) Version(context.Context) (version, revision string, err error) {
	if f.away {
		return "", "", errors.New("nobody answers")
	}
	return "1.2.3", "abc", nil
}

// script writes a runtime that answers --version with text.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ocirun")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncat <<.\n"+text+"\n.\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func openTest(t *testing.T, root, runtime string, f fake) *Service {
	t.Helper()
	s, err := Open(Settings{Version: "9", DataRoot: root, Runtime: runtime},
		Sources{Containers: f, Storage: f, Supervisor: f, Images: func(context.Context) (int, error) { return 4, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheEngineKeepsItsID(t *testing.T) {
	root := t.TempDir()
	first := openTest(t, root, "", fake{}).ID()
	if again := openTest(t, root, "", fake{}).ID(); again != first || !validID.MatchString(first) {
		t.Errorf("%q, then %q", first, again)
	}
	if other := openTest(t, t.TempDir(), "", fake{}).ID(); other == first {
		t.Error("two engines have one id")
	}
	if err := os.WriteFile(filepath.Join(root, "engine-id"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if made := openTest(t, root, "", fake{}).ID(); !validID.MatchString(made) {
		t.Errorf("after a power cut: %q", made)
	}
	if err := os.WriteFile(filepath.Join(root, "engine-id"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Settings{DataRoot: root}, Sources{}); err == nil || !strings.Contains(err.Error(), "expected a UUID") {
		t.Errorf("got %v", err)
	}
}

func TestVersionNamesTheOtherBinaries(t *testing.T) {
	s := openTest(t, t.TempDir(), script(t, "ocirun version 7.7\ncommit: fff\nspec: 1.3.0"), fake{})
	version, err := s.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, c := range version.Components {
		got[c.Name] = c.Version + " " + c.Details["GitCommit"]
	}
	if got["supervisor"] != "1.2.3 abc" || got["ocirun"] != "7.7 fff" || !strings.HasPrefix(got["Engine"], "9 ") {
		t.Errorf("got %v", got)
	}
}

func TestWhatCannotBeAskedIsAWarningAndNoFailure(t *testing.T) {
	s := openTest(t, t.TempDir(), "/nonexistent/ocirun", fake{away: true})
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(info.Warnings, "\n")
	if !strings.Contains(all, "nobody answers") || !strings.Contains(all, "/nonexistent/ocirun") {
		t.Errorf("warnings %q", all)
	}
	if info.Containers != 6 || info.Images != 4 || info.KernelVersion == "" || info.NCPU == 0 || info.MemTotal == 0 {
		t.Errorf("info %+v", info)
	}
}

func TestAnotherRuntimeBinaryIsAskedAgain(t *testing.T) {
	path := script(t, "ocirun version 1")
	s := openTest(t, t.TempDir(), path, fake{})
	if got := s.runtimeVersion(t.Context()).version; got != "1" {
		t.Fatalf("got %q", got)
	}
	if err := os.Rename(script(t, "ocirun version 2"), path); err != nil {
		t.Fatal(err)
	}
	if got := s.runtimeVersion(t.Context()).version; got != "2" {
		t.Errorf("got %q", got)
	}
}

func TestOSRelease(t *testing.T) {
	name, version := parseOSRelease("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID='12'\n")
	if name != "Debian GNU/Linux 12 (bookworm)" || version != "12" {
		t.Errorf("%q %q", name, version)
	}
}

func TestMemTotal(t *testing.T) {
	for text, want := range map[string]int64{"MemFree: 1 kB\nMemTotal:       16 kB\n": 16 << 10, "": 0, "MemTotal: x kB\n": 0} {
		if got := parseMemTotal(text); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestCgroupLimits(t *testing.T) {
	v1 := t.TempDir()
	for _, file := range []string{"memory/memory.limit_in_bytes", "cpu/cpu.shares", "pids/cgroup.procs"} {
		if err := os.MkdirAll(filepath.Join(v1, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(v1, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := cgroupFacts{version: "1", memory: true, cpuShares: true, pids: true}
	if got := readCgroup(v1); !reflect.DeepEqual(got, want) {
		t.Errorf("v1: %+v", got)
	}
	if got := unified([]string{"cpu", "memory"}, false); got.version != "2" || !got.memory || got.swap || !got.cpuQuota || got.pids || got.cpuset {
		t.Errorf("v2: %+v", got)
	}
}

func TestWarningsAreAboutWhatTheKernelLacks(t *testing.T) {
	full := apisystem.Info{MemoryLimit: true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true, IPv4Forwarding: true}
	if got := warnings(full); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	full.SwapLimit = false
	if got := warnings(full); len(got) != 1 || got[0] != "WARNING: No swap limit support" {
		t.Errorf("got %v", got)
	}
}

func TestReloadShowsOtherLabels(t *testing.T) {
	s := openTest(t, t.TempDir(), "/bin/false", fake{})
	s.Change([]string{"a=b"}, true)
	if info, err := s.Info(t.Context()); err != nil || len(info.Labels) != 1 || !info.Debug {
		t.Errorf("%+v %v", info, err)
	}
}
