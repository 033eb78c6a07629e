package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/seccomp"
)

// version and commit are set by the linker: -X main.version=1.2.3.
var (
	version = "0.1.0-dev"
	commit  = ""
)

// versionText is what follows "ocirun version": engines parse its lines.
func versionText() string {
	lines := []string{version}
	if commit != "" {
		lines = append(lines, "commit: "+commit)
	}
	lines = append(lines, "spec: "+specs.Version, "go: "+runtime.Version(), "libseccomp: "+seccomp.LibraryVersion())
	return strings.Join(lines, "\n")
}

func printVersion(w io.Writer) { fmt.Fprintf(w, "ocirun version %s\n", versionText()) }
