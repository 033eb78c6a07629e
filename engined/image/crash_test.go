package image

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/engined/engined/proto/errdefs"
)

// crashEnv makes a child of this test binary die: "<data root> <point>".
const crashEnv = "ENGINED_TEST_IMAGE_CRASH"

func crashArchive(t *testing.T) []byte {
	return archiveOf(t, map[string]greg.Image{"web:1": build(t, greg.Config{}, []tarFile{{"a", "1"}}, []tarFile{{"b", "2"}})})
}

// TestLoadUntilKilled is the child of the next test.
func TestLoadUntilKilled(t *testing.T) {
	root, point, is := strings.Cut(os.Getenv(crashEnv), " ")
	if !is {
		t.Skip("only as a child of TestAKilledLoadLeavesAWholeImageOrNone")
	}
	failpoint = func(name string) {
		if name == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	openFixture(t, root).mustLoad(t, crashArchive(t))
}

func TestAKilledLoadLeavesAWholeImageOrNone(t *testing.T) {
	for point, stored := range map[string]bool{"archive-spooled": false, "layer-loaded": false, "image-stored": true} {
		t.Run(point, func(t *testing.T) {
			root := t.TempDir()
			if os.Geteuid() != 0 {
				t.Skip("unpacking layers needs root")
			}
			child := exec.Command(os.Args[0], "-test.run=^TestLoadUntilKilled$")
			child.Env = append(os.Environ(), crashEnv+"="+root+" "+point)
			var exit *exec.ExitError
			if err := child.Run(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child ended with %v", err)
			}
			f := openFixture(t, root)
			if _, err := f.Resolve(t.Context(), "web:1"); (err == nil) != stored || err != nil && errdefs.CodeOf(err) != errdefs.NoSuchImage {
				t.Errorf("after the crash: %v", err)
			}
			all, err := f.layers.All(t.Context())
			if want := map[bool]int{true: 2}[stored]; err != nil || len(all) != want {
				t.Errorf("%d layers, %v; want %d", len(all), err, want)
			}
			if left, _ := filepath.Glob(filepath.Join(root, "image", "*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			err = f.Load(t.Context(), bytes.NewReader(crashArchive(t)), LoadOptions{}, func(jsonstream.Message) {})
			if err != nil {
				t.Errorf("loading it again: %v", err)
			}
		})
	}
}
