package rootfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestUnpackedBusyboxRuns(t *testing.T) {
	if _, err := os.Stat(Busybox); err != nil {
		t.Skip("busybox-static is not installed")
	}
	dir := t.TempDir()
	if err := Unpack(dir); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "bin/sh"), "-c", "echo $((6*7))").CombinedOutput()
	if err != nil || string(out) != "42\n" {
		t.Errorf("%q, %v", out, err)
	}
}
