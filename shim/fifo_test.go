package shim_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	proto "github.com/engined/engined/proto/shim"
)

// A reader that only opens and reads, as cat does, gets everything however late
// the second fifo is opened: nobody writes and goes before the process does.
func TestPlainReadersOfFifosSeeOneStream(t *testing.T) {
	b := newBox(t, sh("echo out; echo err >&2"), nil)
	paths := []string{filepath.Join(b.dir, "out"), filepath.Join(b.dir, "err")}
	read := make([]chan string, len(paths))
	for i, path := range paths {
		must(t, unix.Mkfifo(path, 0o600))
		read[i] = make(chan string, 1)
	}
	reader := func(i int) {
		file, err := os.Open(paths[i]) // waits for a writer
		if err != nil {
			read[i] <- err.Error()
			return
		}
		defer file.Close()
		data, err := io.ReadAll(file)
		if err != nil {
			data = append(data, err.Error()...)
		}
		read[i] <- string(data)
	}
	b.request(proto.Init, proto.Request{Stdout: paths[0], Stderr: paths[1]})
	started := make(chan error, 1)
	go func() {
		_, err := b.client.Start(b.ctx, proto.Init)
		started <- err
	}()
	for i := range paths {
		go reader(i)
	}
	must(t, <-started)
	b.exit(proto.Init)
	for i, want := range []string{"out\n", "err\n"} {
		if got := <-read[i]; got != want {
			t.Errorf("%s: %q, expected %q", paths[i], got, want)
		}
	}
}
