package oci

import (
	"bufio"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/engined/engined/integration/bundle"
)

// TestRunPassesSignals: an attached run is the process's stand-in for whoever
// started it, real-time signals and faults that somebody sends included.
func TestRunPassesSignals(t *testing.T) {
	ocirun, references, dir := runtimes(t)
	for _, runtime := range append(references, ocirun) {
		t.Run(runtime.Name, func(t *testing.T) {
			passesSignals(t, runtime, filepath.Join(dir, runtime.Name))
		})
	}
}

func passesSignals(t *testing.T, runtime bundle.Runtime, dir string) {
	passed := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGALRM, 37, 64}
	script := ""
	for _, number := range passed {
		script += fmt.Sprintf("trap 'echo got %d' %d; ", int(number), int(number))
	}
	id := filepath.Base(filepath.Dir(dir)) + "-" + runtime.Name
	spec := bundle.Plain(id)
	spec.Process.Args = []string{"/bin/sh", "-c", script + "trap 'exit 9' TERM; echo up; while :; do sleep 1000 & wait; done"}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = runtime.Call(dir, "delete", "--force", id) })
	cmd := runtime.Command(t.Context(), "run", "--bundle", dir, id)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("it said %q, %v; want %q", lines.Text(), lines.Err(), want)
		}
	}
	expect("up")
	for _, number := range passed {
		if err := cmd.Process.Signal(number); err != nil {
			t.Fatal(err)
		}
		expect(fmt.Sprintf("got %d", int(number)))
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 9 {
		t.Errorf("status %d after SIGTERM, want 9", status)
	}
}
