package main

import (
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"strings"

	"github.com/engined/engined/integration/leftovers"
)

// tree prints root and the processes below it, one a line, and after it what of
// the instance has another parent: whatever outlived the process that started it.
func tree(out io.Writer, root int, p places) error {
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
	roots := []int{root}
	for pid, proc := range all {
		if pid != root && ofInstance(proc, p) && !ofInstance(all[proc.Parent], p) {
			roots = append(roots, pid)
		}
	}
	sort.Ints(roots[1:])
	for _, pid := range roots {
		printTree(out, all, children, pid, 1)
	}
	return nil
}

// ofInstance reports whether proc is a daemon or a shim of the instance at p.
func ofInstance(proc leftovers.Proc, p places) bool {
	return proc.Ours() && (strings.Contains(proc.Command, p.execRoot+"/") || strings.Contains(proc.Command, p.dir+"/"))
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
