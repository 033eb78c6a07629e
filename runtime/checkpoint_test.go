package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

func TestCheckpointArguments(t *testing.T) {
	got := checkpointArgs("/c/one", "/c/one/work", Checkpoint{TCP: true, Shell: true, UnixSockets: true, EmptyNS: []string{"network"}}, "id")
	want := []string{"checkpoint", "--image-path", "/c/one", "--work-path", "/c/one/work", "--leave-running",
		"--tcp-established", "--ext-unix-sk", "--shell-job", "--empty-ns", "network", "id"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = checkpointArgs("/c", "/w", Checkpoint{Exit: true}, "id")
	if diff := cmp.Diff([]string{"checkpoint", "--image-path", "/c", "--work-path", "/w", "id"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRestoreTakesTheCheckpointsFlags(t *testing.T) {
	bundle := t.TempDir()
	path := filepath.Join(bundle, "checkpoints", "one")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := shim.WriteFile(filepath.Join(path, checkpointFile), Checkpoint{Name: "one", Exit: true, TCP: true}); err != nil {
		t.Fatal(err)
	}
	request := Request{Checkpoint: "one"}
	if err := resolveCheckpoint(&request, bundle); err != nil {
		t.Fatal(err)
	}
	want := Request{Checkpoint: "one", CheckpointDir: filepath.Join(bundle, "checkpoints"), RestoreFlags: []string{"--tcp-established"}}
	if diff := cmp.Diff(want, request); diff != "" {
		t.Error(diff)
	}
	err := resolveCheckpoint(&Request{Checkpoint: "two"}, bundle)
	if errdefs.KindOf(err) != errdefs.NotFound || !strings.HasPrefix(err.Error(), "checkpoint: ") {
		t.Errorf("a checkpoint that is not there: %v", err)
	}
}

func TestOnlyCheckpointsAreDeleted(t *testing.T) {
	dir, c := t.TempDir(), &Container{}
	bundle, saved, cutOff := filepath.Join(dir, "bundle"), filepath.Join(dir, "one"), filepath.Join(dir, "two")
	if err := errors.Join(
		os.Mkdir(cutOff, 0o700), shim.WriteFile(filepath.Join(cutOff, unfinishedFile), Checkpoint{Name: "two"}),
		os.Mkdir(bundle, 0o700), os.WriteFile(filepath.Join(bundle, "config.json"), []byte(`{"ociVersion": "1.0.2"}`), 0o600),
		os.Mkdir(saved, 0o700), shim.WriteFile(filepath.Join(saved, checkpointFile), Checkpoint{Name: "one"}),
	); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Checkpoints(dir); err != nil || len(found) != 1 || found[0].Name != "one" {
		t.Errorf("found: %v, %v", found, err)
	}
	if err := c.DeleteCheckpoint(dir, "bundle"); errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("a bundle: %v", err)
	}
	for _, name := range []string{"one", "two"} {
		if err := c.DeleteCheckpoint(dir, name); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "bundle" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestCheckpointThatFailsSaysCRIUsReason(t *testing.T) {
	log := filepath.Join(t.TempDir(), "dump.log")
	failed := errdefs.Internal.Errorf("criu failed: log file: dump.log")
	if err := withReason(failed, log); !errors.Is(err, failed) || strings.Contains(err.Error(), "criu said") {
		t.Errorf("without a log: %v", err)
	}
	said := "(00.001) Version: 3.17\n(00.002) Error (criu/vdso.c:381): vdso: Unexpected bounds\nWarn  (x): no\nError (criu/crtools.c:260): Could not initialize\n"
	if err := os.WriteFile(log, []byte(said), 0o600); err != nil {
		t.Fatal(err)
	}
	err := withReason(failed, log)
	want := failed.Error() + "; criu said: Error (criu/vdso.c:381): vdso: Unexpected bounds; Error (criu/crtools.c:260): Could not initialize"
	if errdefs.KindOf(err) != errdefs.Internal || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := withReason(nil, log); err != nil {
		t.Error(err)
	}
}
