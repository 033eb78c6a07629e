package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	longestFile = 600 // lines
	longestDoc  = 60
)

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func TestFilesAreShort(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles, p.CFiles, p.HFiles) {
			text := read(t, filepath.Join(p.Dir, file))
			if lines := bytes.Count(text, []byte("\n")); lines > longestFile && !generated.Match(text) {
				t.Errorf("%s/%s has %d lines, more than %d", strings.TrimPrefix(p.ImportPath, module), file, lines, longestFile)
			}
		}
	}
}

// TestPackagesSayWhatTheyAre: every package has its comment, in doc.go if it is
// more than a few lines, and it is short enough to be read.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		var comment int
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles) {
			text := read(t, filepath.Join(p.Dir, file))
			head, _, _ := bytes.Cut(append([]byte("\n"), text...), []byte("\npackage "))
			comment = max(comment, bytes.Count(head, []byte("\n//")))
		}
		if len(p.GoFiles)+len(p.CgoFiles) > 0 && comment == 0 {
			t.Errorf("%s: no package comment", name)
		}
		if comment > longestDoc && !strings.HasPrefix(name, "proto/") {
			t.Errorf("%s: a package comment of %d lines, more than %d", name, comment, longestDoc)
		}
	}
}

// TestForbiddenNames: what such a package is about nobody can say.
func TestForbiddenNames(t *testing.T) {
	for _, p := range list(t, "./...") {
		switch base := filepath.Base(p.ImportPath); base {
		case "util", "utils", "common", "helpers", "misc", "base":
			t.Errorf("%s: a package is a noun, %q is none", p.ImportPath, base)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
