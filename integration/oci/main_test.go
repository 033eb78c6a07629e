package oci

import (
	"fmt"
	"os"
	"testing"

	"github.com/engined/engined/integration/bundle"
)

func TestMain(m *testing.M) {
	if missing := os.Getenv(withoutVariable); missing != "" {
		fmt.Fprintln(os.Stderr, execWithout(missing))
		os.Exit(250)
	}
	os.Exit(bundle.Main(m))
}
