package layer

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
)

func BenchmarkMount(b *testing.B) {
	s := open(b, b.TempDir(), "overlay2")
	var parent digest.Digest
	for i := range 5 {
		parent = s.mustRegister(b, parent, file(fmt.Sprintf("f%d", i), "x")).Chain
	}
	s.mustMount(b, "c1", parent)
	for b.Loop() {
		if err := s.Unmount(b.Context(), "c1"); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Mount(b.Context(), "c1"); err != nil {
			b.Fatal(err)
		}
	}
}
