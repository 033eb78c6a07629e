package perf

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/leftovers"
)

// scribe is a container that writes a file to its standard output whenever it
// is told to: what is measured is the writing, not the start.
const scribe = `while read file </d/go; do cat "/d/$file"; echo done >/d/done; done`

// scribbler is one engine with a scribe.
type scribbler struct {
	name, dir string // dir is shown to the container as /d
	engine    string // directory of the engine
	cli       harness.CLI
	api       *client.Client
	id        string
}

// TestLogs measures reading from and writing to json-file logs, lines of two
// and of a hundred bytes, and what the engine's processes consume for writing.
func TestLogs(t *testing.T) {
	cli := harness.AnyCLI(t)
	stack := harness.New(t, harness.Options{})
	reference := harness.NewDockerd(t)
	for _, kind := range []struct{ line, bytes int }{{2, 1 << 20}, {100, 20 << 20}} {
		if !*full {
			kind.bytes /= 16
		}
		line := append(bytes.Repeat([]byte("x"), kind.line-1), '\n')
		text := bytes.Repeat(line, kind.bytes/kind.line)
		compareLogs(t, fmt.Sprintf("%.1f MB of %d-byte lines, json-file, ", float64(len(text))/1e6, kind.line), len(text), []*scribbler{
			newScribbler(t, "engined", stack.Dir, cli.At(t, stack.Host()), stack.Host(), text),
			newScribbler(t, "dockerd", reference.Dir, cli.At(t, reference.Host()), reference.Host(), text),
		})
	}
}

func compareLogs(t *testing.T, title string, size int, scribblers []*scribbler) {
	t.Helper()
	const reads, writes = 5, 9
	var clis, apis, writers []contender
	for _, s := range scribblers {
		clis = append(clis, contender{name: s.name, once: s.readByCLI})
		apis = append(apis, contender{name: s.name, once: func() error { return s.readByAPI(t, size) }})
		writers = append(writers, contender{name: s.name, once: s.write})
		if err := s.write(); err != nil {
			t.Fatal(err)
		}
		s.settle(t)
	}
	show(t, title+"read by `docker logs` (whose own work is 1.7 µs of CPU a line)", reads, 0, clis)
	show(t, title+"read from the API", reads, 0, apis)
	before := make([]time.Duration, len(scribblers))
	for i, s := range scribblers {
		before[i] = s.cpu(t)
	}
	show(t, title+"written by cat", writes, 0, writers)
	for i, s := range scribblers {
		s.settle(t)
		if spent := s.cpu(t) - before[i]; *full {
			fmt.Printf("  %-12s %10.2f ms of CPU per MB written\n", s.name, milliseconds(spent)/(float64(size)*(writes+1)/1e6))
		}
		s.cli.Must(t, "rm", "-f", s.id)
	}
}

func newScribbler(t *testing.T, name, engine string, cli harness.CLI, host string, text []byte) *scribbler {
	t.Helper()
	api, err := client.New(client.WithHost(host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	s := &scribbler{name: name, dir: harness.TempDir(t), engine: engine, cli: cli, api: api}
	if err := os.WriteFile(filepath.Join(s.dir, "text"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, fifo := range []string{"go", "done"} {
		if err := syscall.Mkfifo(filepath.Join(s.dir, fifo), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.id = strings.TrimSpace(cli.Must(t, "run", "-d", "--net=none", "-v", s.dir+":/d", harness.Image, "sh", "-c", scribe))
	return s
}

// write has the container write its text once.
func (s *scribbler) write() error {
	if err := os.WriteFile(filepath.Join(s.dir, "go"), []byte("text\n"), 0); err != nil {
		return err
	}
	said, err := os.ReadFile(filepath.Join(s.dir, "done"))
	if err == nil && string(said) != "done\n" {
		err = fmt.Errorf("the container says %q", said)
	}
	return err
}

// settle returns when the engine has logged all that was written.
func (s *scribbler) settle(t *testing.T) {
	t.Helper()
	const mark = "the last line"
	if err := os.WriteFile(filepath.Join(s.dir, "mark"), []byte(mark+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	follow, err := s.api.ContainerLogs(ctx, s.id, client.ContainerLogsOptions{ShowStdout: true, Follow: true, Tail: "0"})
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	if err := os.WriteFile(filepath.Join(s.dir, "go"), []byte("mark\n"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(s.dir, "done")); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for buf := make([]byte, 64<<10); !bytes.Contains(seen, []byte(mark)); {
		n, err := follow.Read(buf)
		seen = append(seen[max(0, len(seen)-len(mark)):], buf[:n]...)
		if err != nil {
			t.Fatalf("%s: the mark does not come: %v", s.name, err)
		}
	}
}

func (s *scribbler) readByCLI() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	cmd := s.cli.Command(context.Background(), "logs", s.id)
	cmd.Stdout = null
	return cmd.Run()
}

// readByAPI reads the frames, and expects no fewer bytes than were written once.
func (s *scribbler) readByAPI(t *testing.T, least int) error {
	logs, err := s.api.ContainerLogs(t.Context(), s.id, client.ContainerLogsOptions{ShowStdout: true})
	if err != nil {
		return err
	}
	defer logs.Close()
	n, err := io.Copy(io.Discard, logs)
	if err == nil && n < int64(least) {
		err = fmt.Errorf("only %d bytes were read", n)
	}
	return err
}

// engines are the programs that an engine consists of.
var engines = []string{"engined", "supervisor", "shim", "dockerd", "containerd", "containerd-shim-runc-v2"}

// cpu returns what the engine's processes have consumed so far. Each has a path
// of the engine's in its command line, or works in its directory.
func (s *scribbler) cpu(t *testing.T) (spent time.Duration) {
	t.Helper()
	all, err := leftovers.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for pid, p := range all {
		if !slices.Contains(engines, filepath.Base(p.Exe)) || !strings.Contains(p.Command+" "+p.Cwd+"/", s.engine+"/") {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): utime and stime are fields 14 and 15, in hundredths of a second.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			spent += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	if spent == 0 {
		t.Fatalf("no process of %s was found", s.name)
	}
	return spent
}
