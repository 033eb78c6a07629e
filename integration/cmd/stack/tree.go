package main

import (
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"strings"

	"github.com/engined/engined/integration/leftovers"
)

// tree prints the processes below root and its children, one a line. A shim is
// in a session of its own but its parent is the supervisor.
func tree(out io.Writer, root int) error {
	all, err := leftovers.Processes()
	if err != nil {
		return err
	}
	children := map[int][]int{}
	for pid, proc := range all {
		children[proc.Parent] = append(children[proc.Parent], pid)
	}
	for _, pids := range children {
		sort.Ints(pids)
	}
	printTree(out, all, children, root, 1)
	return nil
}

func printTree(out io.Writer, all map[int]leftovers.Proc, children map[int][]int, pid, depth int) {
	proc := all[pid]
	words := strings.Fields(proc.Command)
	if len(words) > 0 && proc.Ours() {
		words[0] = filepath.Base(words[0])
	}
	line := strings.Join(words, " ")
	if len(line) > 100 {
		line = line[:97] + "..."
	}
	fmt.Fprintf(out, "%s%d %s\n", strings.Repeat("  ", depth), pid, line)
	for _, child := range children[pid] {
		printTree(out, all, children, child, depth+1)
	}
}
