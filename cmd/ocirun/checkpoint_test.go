package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPageServers(t *testing.T) {
	for text, want := range map[string]struct {
		address string
		port    int
	}{"": {}, "127.0.0.1:7": {"127.0.0.1", 7}, "[::1]:65535": {"::1", 65535}, "host.example:80": {"host.example", 80}} {
		if address, port, err := pageServer(text); err != nil || address != want.address || port != want.port {
			t.Errorf("%q: %q %d %v", text, address, port, err)
		}
	}
	for _, text := range []string{"host", ":1", "host:", "host:x", "host:0", "host:65536"} {
		if address, port, err := pageServer(text); err == nil {
			t.Errorf("%q: accepted as %q %d", text, address, port)
		}
	}
}

func TestParentPaths(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := parentPath(dir, "."); err != nil || got != "." {
		t.Errorf("%q, %v", got, err)
	}
	for parent, want := range map[string]string{
		"/abs": "--parent-path must be relative",
		"none": "invalid --parent-path: stat " + dir + "/none: no such file or directory",
		"file": "invalid --parent-path: stat " + dir + "/file: not a directory",
	} {
		if _, err := parentPath(dir, parent); err == nil || err.Error() != want {
			t.Errorf("%s: %v", parent, err)
		}
	}
}

func TestStatusFiles(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	for _, test := range []struct {
		fd, want int
		lazy, ok bool
	}{
		{-1, -1, true, true}, {int(writer.Fd()), int(writer.Fd()), true, true}, {int(writer.Fd()), -1, false, true},
		{int(reader.Fd()), -1, true, false}, {1 << 20, -1, true, false},
	} {
		if got, err := statusFile(test.fd, test.lazy); got != test.want || (err == nil) != test.ok {
			t.Errorf("%+v: %d, %v", test, got, err)
		}
	}
}
