package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
)

// maxExtra is how many rotated files too many are kept for readers that lag.
const maxExtra = 64

// rotated is one rotated file. Its number is its place in rotation.kept, from 1.
type rotated struct {
	number     int // in its name
	compressed bool
}

func (r *rotated) name(path string) string {
	name := path + "." + strconv.Itoa(r.number)
	if r.compressed {
		name += ".gz"
	}
	return name
}

// rotation is a writer's knowledge of its rotated files.
type rotation struct {
	kept        []*rotated // newest first
	compressing *rotated
	resting     bool  // compressing has failed since the last rotation
	failed      error // why the last rotation did not happen
}

// load finds the rotated files of an earlier writer.
func (r *rotation) load(path string) error {
	kept, err := listRotated(path)
	if err != nil {
		return fmt.Errorf("listing the rotated files of %s: %w", path, err)
	}
	for _, one := range kept {
		r.kept = append(r.kept, &one)
	}
	return nil
}

// listRotated returns path's rotated files, newest first.
func listRotated(path string) ([]rotated, error) {
	names, err := readNames(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	prefix := filepath.Base(path) + "."
	var found []rotated
	for _, name := range names {
		digits, has := strings.CutPrefix(name, prefix)
		if !has {
			continue
		}
		digits, compressed := strings.CutSuffix(digits, ".gz")
		number, err := strconv.Atoi(digits)
		if err == nil && number > 0 && strconv.Itoa(number) == digits {
			found = append(found, rotated{number, compressed})
		}
	}
	slices.SortFunc(found, func(a, b rotated) int {
		if a.number == b.number && a.compressed != b.compressed { // a writer died between rename and unlink
			if a.compressed {
				return 1
			}
			return -1
		}
		return a.number - b.number
	})
	return slices.CompactFunc(found, func(a, b rotated) bool { return a.number == b.number }), nil
}

func readNames(dir string) ([]string, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	var buffer [4096]byte // on the stack: package os keeps its buffers, in each shim
	for {
		n, err := unix.ReadDirent(fd, buffer[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n <= 0:
			return names, nil
		default:
			_, _, names = unix.ParseDirent(buffer[:n], -1, names)
		}
	}
}

// rotate makes the current file the newest rotated one and starts a new one.
// If it cannot, the current one goes on and the next entry tries again.
func (w *Writer) rotate() {
	path := w.spec.Path
	next := path + ".new"
	fd, err := openAppend(next)
	if err != nil {
		w.failed = err
		return
	}
	failpoint.At("log-next-made")
	if err := w.shift(); err != nil {
		w.failed = err
		unix.Close(fd)
		os.Remove(next)
		return
	}
	failpoint.At("log-numbers-shifted")
	// Between these two renames path is absent; readers wait or see the end.
	if err := os.Rename(path, path+".1"); err != nil && !os.IsNotExist(err) {
		w.failed = err
		unix.Close(fd)
		os.Remove(next)
		return
	}
	w.kept = slices.Insert(w.kept, 0, &rotated{number: 1})
	w.resting = false
	failpoint.At("log-current-numbered")
	if err := os.Rename(next, path); err != nil {
		w.failed = err // the entries go on into next, which a reader does not find
	}
	unix.Close(w.fd)
	w.fd, w.size, w.failed = fd, 0, nil
	failpoint.At("log-rotated")
	w.prune()
}

// shift renames the rotated files, oldest first, so that number 1 is free.
func (w *Writer) shift() error {
	for i := len(w.kept) - 1; i >= 0; i-- {
		file := w.kept[i]
		moved := rotated{i + 2, file.compressed}
		if file.number == moved.number {
			continue // an earlier try got this far
		}
		if err := os.Rename(file.name(w.spec.Path), moved.name(w.spec.Path)); err != nil && !os.IsNotExist(err) {
			return err
		}
		file.number = moved.number
		failpoint.At("log-number-shifted")
	}
	return nil
}

// prune removes the oldest files beyond the limit, up to the first that a
// reader needs.
func (w *Writer) prune() {
	limit := max(w.spec.MaxFile, 1) - 1
	for len(w.kept) > limit {
		oldest := w.kept[len(w.kept)-1]
		name := oldest.name(w.spec.Path)
		lock, free := lockUnread(name)
		if !free && len(w.kept) <= limit+maxExtra {
			return
		}
		os.Remove(name)
		if lock >= 0 {
			unix.Close(lock)
		}
		w.kept = w.kept[:len(w.kept)-1]
	}
}

// lockUnread locks the file if no reader has it. The lock goes with the descriptor.
func lockUnread(name string) (fd int, free bool) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, true // it is not there
	}
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// Compression is a rotated file to compress: run Compress on the two
// descriptors, in another process at best, then call Compressed.
type Compression struct {
	From, To int // owned by the caller
}

// Compress returns the oldest rotated file that should be and is not
// compressed, if there is one and none is being compressed. After a failure there
// is none until the next rotation: what has failed would fail again at once.
func (w *Writer) Compress() (Compression, bool) {
	if !w.spec.Compress || w.compressing != nil || w.resting {
		return Compression{}, false
	}
	for i := len(w.kept) - 1; i >= 0; i-- {
		file := w.kept[i]
		if file.compressed {
			continue
		}
		if i > 0 && i >= max(w.spec.MaxFile, 1)-1 {
			continue // it is about to go
		}
		from, free := lockUnread(file.name(w.spec.Path))
		if !free || from < 0 {
			return Compression{}, false
		}
		_ = unix.Flock(from, unix.LOCK_UN) // readers may have it meanwhile
		to, err := unix.Open(w.spec.Path+".gz.tmp", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
		if err != nil {
			w.resting = true
			unix.Close(from)
			return Compression{}, false
		}
		w.compressing = file
		failpoint.At("log-compression-begun")
		return Compression{From: from, To: to}, true
	}
	return Compression{}, false
}

// Compressed puts the compressed file in the place of the plain one, unless
// compressing failed or a reader has the plain one.
func (w *Writer) Compressed(good bool) {
	file := w.compressing
	w.compressing = nil
	temporary := w.spec.Path + ".gz.tmp"
	if !good || !slices.Contains(w.kept, file) {
		w.resting = !good
		os.Remove(temporary)
		return
	}
	plain := file.name(w.spec.Path)
	lock, free := lockUnread(plain)
	if !free || lock < 0 {
		os.Remove(temporary)
		return
	}
	defer unix.Close(lock) // held until the plain one is gone
	failpoint.At("log-compressed")
	if err := os.Rename(temporary, (&rotated{file.number, true}).name(w.spec.Path)); err != nil {
		w.resting = true
		os.Remove(temporary)
		return
	}
	failpoint.At("log-compressed-named")
	os.Remove(plain)
	file.compressed = true
}

// abandon forgets a compression that nobody will report.
func (r *rotation) abandon() { r.compressing = nil }

func closing(fd int) func(context.Context) error {
	return func(context.Context) error { return unix.Close(fd) }
}
