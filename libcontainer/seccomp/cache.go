package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
)

// cacheVersion changes whenever Compile or the file's layout do.
const cacheVersion = 5

// cacheEntries bounds the directory. Hosts use a handful of profiles; more
// means that somebody generates them.
const cacheEntries = 64

// header is the start of a cached filter, before the key and the program.
type header struct {
	Magic   [4]byte
	Version uint32
	Flags   uint32
	Notify  uint32
	Key     uint32 // bytes
	Count   uint32 // instructions
}

var magic = [4]byte{'b', 'p', 'f', '\n'}

// Cached is Compile with a directory of compiled filters, which only the
// caller's user may write. A file that is not whole is compiled anew; a
// directory that cannot be written costs time, not the filter.
func Cached(profile *specs.LinuxSeccomp, dir string) (Filter, error) {
	key := keyOf(profile)
	path := cachePath(key, dir)
	if filter, ok := readCached(path, key); ok {
		return filter, nil
	}
	filter, err := Compile(profile)
	if err != nil {
		return filter, err
	}
	_ = writeCached(path, key, filter) // see above
	return filter, nil
}

// keyOf is all that the filter depends on: profile, architecture, compiler and
// libseccomp's tables.
func keyOf(profile *specs.LinuxSeccomp) []byte {
	key := appendProfile(make([]byte, 0, usualKey), profile)
	return binary.AppendUvarint(appendTexts(key, runtime.GOARCH, LibraryVersion()), cacheVersion)
}

// cachePath names the file by a hash of the key, which whoever makes profiles can
// choose to be another's: the key is in the file, and decides. With a hash that
// nobody can do it with, package crypto takes 0.3 ms of each start to prepare.
func cachePath(key []byte, dir string) string {
	sum := fnv.New128a()
	_, _ = sum.Write(key) // never fails
	return filepath.Join(dir, fmt.Sprintf("%x.bpf", sum.Sum(nil)))
}

// usualKey has room for the names of all system calls.
const usualKey = 16 << 10

// appendProfile appends all that a profile says; two profiles that differ never
// give the same, since every list and text goes after its length. encoding/json
// would take 0.2 ms, most of it to prepare.
func appendProfile(key []byte, p *specs.LinuxSeccomp) []byte {
	key = appendReturn(appendTexts(key, p.DefaultAction), p.DefaultErrnoRet)
	key = appendTexts(key, p.Architectures...)
	key = appendTexts(key, p.Flags...)
	key = strconv.AppendBool(key, p.Flags == nil)
	key = appendTexts(key, p.ListenerPath, p.ListenerMetadata)
	key = binary.AppendUvarint(key, uint64(len(p.Syscalls)))
	for _, call := range p.Syscalls {
		key = appendTexts(key, call.Names...)
		key = appendReturn(appendTexts(key, call.Action), call.ErrnoRet)
		key = binary.AppendUvarint(key, uint64(len(call.Args)))
		for _, arg := range call.Args {
			key = binary.AppendUvarint(key, uint64(arg.Index))
			key = binary.AppendUvarint(key, arg.Value)
			key = binary.AppendUvarint(key, arg.ValueTwo)
			key = appendTexts(key, arg.Op)
		}
	}
	return key
}

func appendTexts[T ~string](key []byte, texts ...T) []byte {
	key = binary.AppendUvarint(key, uint64(len(texts)))
	for _, text := range texts {
		key = append(binary.AppendUvarint(key, uint64(len(text))), text...)
	}
	return key
}

// appendReturn tells none from 0.
func appendReturn(key []byte, value *uint) []byte {
	if value == nil {
		return append(key, 0)
	}
	return binary.AppendUvarint(append(key, 1), uint64(*value))
}

func readCached(path string, key []byte) (Filter, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Filter{}, false
	}
	var h header
	n, err := binary.Decode(data, binary.LittleEndian, &h)
	if err != nil || h.Magic != magic || h.Version != cacheVersion || h.Count == 0 || h.Count > maxInstructions {
		return Filter{}, false
	}
	program, ok := bytes.CutPrefix(data[n:], key)
	if !ok || int(h.Key) != len(key) || len(program) != int(h.Count)*8 {
		return Filter{}, false
	}
	return Filter{Program: program, Flags: uint(h.Flags), Notify: h.Notify == 1}, true
}

// writeCached writes the file whole: whoever reads it sees all of it or none,
// and of two writers either.
func writeCached(path string, key []byte, filter Filter) error {
	h := header{
		Magic: magic, Version: cacheVersion, Flags: uint32(filter.Flags),
		Key: uint32(len(key)), Count: uint32(len(filter.Program) / 8),
	}
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
	if _, err := file.Write(slices.Concat(data, key, filter.Program)); err != nil {
		return err
	}
	failpoint.At("filter-written")
	return publish(file, path)
}

// publish gives the file its name. What has it is not whole, of another writer of
// the same moment, or of another key.
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
