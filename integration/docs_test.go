package integration

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var quoted = regexp.MustCompile("`([^`]+)`")

// TestRoomFinderIsTrue: every file that docs/architecture.md names in its table
// of changes exists. A bare file name lies where the one before it does.
func TestRoomFinderIsTrue(t *testing.T) {
	text := string(read(t, "../docs/architecture.md"))
	_, table, found := strings.Cut(text, "| I want to change | it is in |")
	if !found {
		t.Fatal("docs/architecture.md has no table of changes")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(strings.TrimSpace(table), "\n")[1:]
	if len(rows) < 20 {
		t.Errorf("%d rows; a newcomer looks for twenty things", len(rows))
	}
	for _, row := range rows {
		cells := strings.Split(row, "|")
		folder := ""
		for _, match := range quoted.FindAllStringSubmatch(cells[len(cells)-2], -1) {
			name := match[1]
			if !strings.ContainsAny(name, "/.") && folder != "" || strings.HasPrefix(name, "make ") {
				continue // a word, a command
			}
			path := name
			if !strings.Contains(name, "/") && folder != "" {
				path = filepath.Join(folder, name)
			}
			if matches, err := filepath.Glob(filepath.Join("..", path)); err != nil || len(matches) == 0 {
				t.Errorf("there is no %s, in: %s", path, row)
			}
			if folder = path; filepath.Ext(path) != "" {
				folder = filepath.Dir(path)
			}
		}
	}
}
