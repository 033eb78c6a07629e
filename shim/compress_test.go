package shim_test

import (
	"bufio"
	"encoding/base64"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	proto "github.com/engined/engined/proto/shim"
)

// A log that cannot be compressed, as the disk is full, is left alone until the
// next rotation, whatever is written meanwhile, and none of it is lost.
func TestCompressionThatFailsWaitsForTheNextRotation(t *testing.T) {
	b := newBox(t, []string{"/bin/cat"}, nil)
	dir := t.TempDir()
	must(t, unix.Mount("small", dir, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	filler := filepath.Join(dir, "filler")
	must(t, os.WriteFile(filler, make([]byte, 160<<10), 0o600)) // 96 KiB are left
	log := &proto.Log{Driver: "json-file", Path: filepath.Join(dir, "log"), MaxSize: 64 << 10, MaxFile: 5, Compress: true}
	b.start(proto.Request{OpenStdin: true, AwaitAttach: 1, Log: log})
	conn := b.attach(proto.AttachRequest{Process: proto.Init, Stdin: true, Stdout: true})
	echoed := bufio.NewReader(&unframe{from: conn})
	random, written := rand.NewChaCha8([32]byte{3}), 0
	write := func(lines int) {
		t.Helper()
		for range lines { // of 4 KB that become 3 KB
			raw := make([]byte, 3000)
			random.Read(raw)
			_, err := io.WriteString(conn, base64.StdEncoding.EncodeToString(raw)+"\n")
			must(t, err)
			_, err = echoed.ReadString('\n')
			must(t, err)
			written++
		}
	}
	await := func(happened func() bool) {
		t.Helper()
		for !happened() {
			must(t, b.ctx.Err())
		}
	}
	failures := func() int { return strings.Count(b.said(), "compressing: ") }

	write(17) // more than a file holds
	await(func() bool {
		_, err := os.Stat(log.Path + ".gz.tmp")
		return failures() > 0 && os.IsNotExist(err) // there is room again
	})
	write(3)
	if n := failures(); n != 1 {
		t.Errorf("compressing was tried %d times", n)
	}
	must(t, os.Remove(filler))
	write(17)
	await(func() bool {
		_, first := os.Stat(log.Path + ".1.gz")
		_, second := os.Stat(log.Path + ".2.gz")
		return first == nil && second == nil
	})
	must(t, b.client.Signal(b.ctx, proto.Init, int(unix.SIGKILL)))
	if exit := b.exit(proto.Init); exit.LogLost != 0 {
		t.Errorf("%d lines are lost", exit.LogLost)
	}
	if got := strings.Count(b.loggedAt(log.Path), "\n"); got != written {
		t.Errorf("%d of %d lines are in the log", got, written)
	}
}
