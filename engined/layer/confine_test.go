package layer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAConfinedThreadStaysBelowItsDirectory(t *testing.T) {
	needRoot(t)
	if version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 || version < 2 {
		t.Skip("the kernel has no Landlock that allows links between directories")
	}
	inside, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(inside, "way-out")); err != nil {
		t.Fatal(err)
	}
	err := confined(inside, func() error {
		for what, try := range map[string]func() error{
			"read":    func() error { _, err := os.ReadFile(secret); return err },
			"a link":  func() error { _, err := os.ReadFile(filepath.Join(inside, "way-out")); return err },
			"write":   func() error { return os.WriteFile(secret, nil, 0o600) },
			"create":  func() error { return os.WriteFile(filepath.Join(outside, "new"), nil, 0o600) },
			"mknod":   func() error { return unix.Mknod(filepath.Join(outside, "null"), unix.S_IFCHR, 0) },
			"remove":  func() error { return os.Remove(secret) },
			"link in": func() error { return os.Link(secret, filepath.Join(inside, "linked")) },
			"list":    func() error { _, err := os.ReadDir(outside); return err },
		} {
			if err := try(); !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EXDEV) {
				t.Errorf("%s outside: %v", what, err)
			}
		}
		if err := unix.Chroot(inside); !errors.Is(err, unix.EPERM) {
			t.Errorf("a capability that unpacking does not need: %v", err)
		}
		return os.WriteFile(filepath.Join(inside, "new"), nil, 0o600)
	})
	if err != nil {
		t.Errorf("inside: %v", err)
	}
	if _, err := os.ReadFile(secret); err != nil {
		t.Errorf("afterwards, on another thread: %v", err)
	}
}
