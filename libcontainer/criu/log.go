package criu

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strings"
)

// maxReasons is how many of a log's errors are told: the first are causes, the
// rest follow from them.
const maxReasons = 4

// Reasons returns the first errors in a log of criu's, without times.
func Reasons(path string) []string {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	return reasons(file)
}

func reasons(from io.Reader) []string {
	var found []string
	lines := bufio.NewScanner(from)
	for lines.Scan() && len(found) < maxReasons {
		if at := bytes.Index(lines.Bytes(), []byte("Error (")); at >= 0 {
			found = append(found, strings.TrimSpace(string(lines.Bytes()[at:])))
		}
	}
	return found // an overlong line ends it: what was found stays true
}
