package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
)

// cacheVersion changes whenever Compile or the file's layout do.
const cacheVersion = 2

// cacheEntries bounds the directory. Hosts use a handful of profiles; more
// means that somebody generates them.
const cacheEntries = 64

// header is the start of a cached filter, before the program.
type header struct {
	Magic   [4]byte
	Version uint32
	Flags   uint32
	Notify  uint32
	Count   uint32 // instructions
}

var magic = [4]byte{'b', 'p', 'f', '\n'}

// Cached is Compile with a directory of compiled filters, which only the
// caller's user may write. A file that is not whole is compiled anew; a
// directory that cannot be written costs time, not the filter.
func Cached(profile *specs.LinuxSeccomp, dir string) (Filter, error) {
	path := cachePath(profile, dir)
	if filter, ok := readCached(path); ok {
		return filter, nil
	}
	filter, err := Compile(profile)
	if err != nil {
		return filter, err
	}
	_ = writeCached(path, filter) // see above
	return filter, nil
}

// cachePath names the file after all that the filter depends on: profile,
// architecture, compiler and libseccomp's tables.
func cachePath(profile *specs.LinuxSeccomp, dir string) string {
	key := fmt.Appendf(appendProfile(nil, profile), "%s %d %s", runtime.GOARCH, cacheVersion, LibraryVersion())
	sum := sha256.Sum256(key)
	return filepath.Join(dir, hex.EncodeToString(sum[:])+".bpf")
}

// appendProfile appends all that a profile says; two profiles that differ never
// give the same. encoding/json would take 0.2 ms, most of it to prepare.
func appendProfile(key []byte, p *specs.LinuxSeccomp) []byte {
	key = appendReturn(appendQuoted(key, p.DefaultAction), p.DefaultErrnoRet)
	key = appendQuoted(append(key, '\n'), p.Architectures...)
	key = appendQuoted(append(key, '\n'), p.Flags...)
	key = appendQuoted(append(key, '\n'), p.ListenerPath, p.ListenerMetadata)
	for _, call := range p.Syscalls {
		key = appendQuoted(append(key, '\n'), call.Names...)
		key = appendReturn(appendQuoted(append(key, ':'), call.Action), call.ErrnoRet)
		for _, arg := range call.Args {
			key = fmt.Appendf(key, "(%d %d %d %q)", arg.Index, arg.Value, arg.ValueTwo, string(arg.Op))
		}
	}
	return append(key, '\n')
}

func appendQuoted[T ~string](key []byte, texts ...T) []byte {
	for _, text := range texts {
		key = strconv.AppendQuote(key, string(text))
	}
	return key
}

func appendReturn(key []byte, value *uint) []byte {
	if value == nil {
		return key
	}
	return strconv.AppendUint(append(key, ' '), uint64(*value), 10)
}

func readCached(path string) (Filter, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Filter{}, false
	}
	var h header
	n, err := binary.Decode(data, binary.LittleEndian, &h)
	if err != nil || h.Magic != magic || h.Version != cacheVersion || h.Count == 0 || h.Count > maxInstructions {
		return Filter{}, false
	}
	program := data[n:]
	if len(program) != int(h.Count)*8 {
		return Filter{}, false
	}
	return Filter{Program: program, Flags: uint(h.Flags), Notify: h.Notify == 1}, true
}

// writeCached writes the file whole: whoever reads it sees all of it or none,
// and of two writers either.
func writeCached(path string, filter Filter) error {
	h := header{Magic: magic, Version: cacheVersion, Flags: uint32(filter.Flags), Count: uint32(len(filter.Program) / 8)}
	if filter.Notify {
		h.Notify = 1
	}
	data, err := binary.Append(nil, binary.LittleEndian, h)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := prune(dir); err != nil {
		return err
	}
	// Without a name until it is whole: who is killed here leaves nothing.
	file, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(append(data, filter.Program...)); err != nil {
		return err
	}
	failpoint.At("filter-written")
	return publish(file, path)
}

// publish gives the file its name. What has it is not whole, or of another
// writer of the same moment.
func publish(file *os.File, path string) error {
	link := func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	}
	err := link()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return link()
}

// prune empties a directory that has grown full.
func prune(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < cacheEntries {
		return err
	}
	for _, entry := range entries {
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
