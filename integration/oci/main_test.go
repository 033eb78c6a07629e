package oci

import (
	"os"
	"testing"

	"github.com/engined/engined/integration/bundle"
)

func TestMain(m *testing.M) { os.Exit(bundle.Main(m)) }
