package spec

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/engined/engined/proto/errdefs"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:100::/home/joe:/bin/sh\nbroken line\n"
	group  = "root:x:0:\nusers:x:100:\nwheel:x:10:root,joe\n"
)

func TestUsersAreLookedUpAsDockerDoes(t *testing.T) {
	for _, c := range []struct {
		name     string
		add      []string
		uid, gid uint32
		gids     []uint32
		kind     errdefs.Kind
		code     errdefs.Code
	}{
		{"", nil, 0, 0, []uint32{0, 10}, "", ""},
		{"joe", nil, 1000, 100, []uint32{100, 10}, "", ""},
		{"joe:wheel", nil, 1000, 10, []uint32{10}, "", ""},
		{"1000", nil, 1000, 100, []uint32{100, 10}, "", ""},
		{"77", []string{"wheel", "500"}, 77, 0, []uint32{0, 10, 500}, "", ""},
		{"77:88", nil, 77, 88, []uint32{88}, "", ""},
		{"ann", nil, 0, 0, nil, errdefs.InvalidArgument, errdefs.UserUnknown},
		{"joe:nobody", nil, 0, 0, nil, errdefs.InvalidArgument, ""},
		{"joe", []string{"nogroup"}, 0, 0, nil, errdefs.InvalidArgument, ""},
	} {
		got, err := lookUp(c.name, c.add, []byte(passwd), []byte(group))
		if errdefs.KindOf(err) != c.kind || errdefs.CodeOf(err) != c.code {
			t.Errorf("%q: %v", c.name, err)
			continue
		}
		if got.UID != c.uid || got.GID != c.gid || !slices.Equal(got.AdditionalGids, c.gids) {
			t.Errorf("%q + %v: %+v", c.name, c.add, got)
		}
	}
}

func TestAccountFilesAreReadInsideTheRoot(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("spy:x:666:666::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(etc string) error{
		"absolute link": func(etc string) error { return os.Symlink(outside, filepath.Join(etc, "passwd")) },
		"climbing link": func(etc string) error {
			return os.Symlink("../../../../../../../../../.."+outside, filepath.Join(etc, "passwd"))
		},
		"fifo":      func(etc string) error { return syscall.Mkfifo(filepath.Join(etc, "passwd"), 0o644) },
		"directory": func(etc string) error { return os.Mkdir(filepath.Join(etc, "passwd"), 0o755) },
		"nothing":   func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			etc := filepath.Join(root, "etc")
			if err := os.Mkdir(etc, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := make(etc); err != nil {
				t.Fatal(err)
			}
			if got, err := ResolveUser(root, "spy", nil); errdefs.CodeOf(err) != errdefs.UserUnknown {
				t.Errorf("%+v, %v", got, err)
			}
			if got, err := ResolveUser(root, "", nil); err != nil || got.UID != 0 {
				t.Errorf("the default user: %+v, %v", got, err)
			}
		})
	}
}

func TestALinkInsideTheRootIsFollowed(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "real", "passwd"), []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/real", filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if got, err := ResolveUser(root, "joe", nil); err != nil || got.UID != 1000 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheWorkingDirectoryIsMadeInsideTheRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := MakeWorkingDir(root, "/a/b"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "a", "b")); err != nil {
		t.Error(err)
	}
	if err := MakeWorkingDir(root, "/link/b"); err == nil {
		t.Log("made inside the root")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("made outside the root: %v", entries)
	}
}
