package leftovers

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Proc is one process as /proc shows it.
type Proc struct {
	Pid, Parent int
	Start       uint64 // clock ticks since boot
	State       byte   // R S D Z ...
	Command     string // command line, arguments separated by spaces; [comm] if it has none
	Exe         string // path of the executable, without " (deleted)"
	Cwd         string
}

// Processes returns all processes by pid.
func Processes() (map[int]Proc, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := map[int]Proc{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if proc, err := ReadProc(pid); err == nil { // an error: it is gone
			found[pid] = proc
		}
	}
	return found, nil
}

// ReadProc reads one process.
func ReadProc(pid int) (Proc, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Proc{}, err
	}
	// proc_pid_stat(5): pid (comm) state ppid ...; comm may hold anything.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Proc{}, fmt.Errorf("%s/stat: no command name", dir)
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 {
		return Proc{}, fmt.Errorf("%s/stat: %d fields", dir, len(fields))
	}
	proc := Proc{Pid: pid, State: fields[0][0]}
	proc.Parent, _ = strconv.Atoi(fields[1])
	proc.Start, _ = strconv.ParseUint(fields[19], 10, 64)
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	proc.Command = strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
	if proc.Command == "" {
		proc.Command = "[" + string(stat[open+1:end]) + "]"
	}
	exe, _ := os.Readlink(filepath.Join(dir, "exe"))
	proc.Exe = strings.TrimSuffix(exe, " (deleted)")
	proc.Cwd, _ = os.Readlink(filepath.Join(dir, "cwd"))
	return proc, nil
}

// Ours reports whether p runs one of the four binaries.
func (p Proc) Ours() bool {
	switch filepath.Base(p.Exe) {
	case "engined", "ocirun":
		return true
	case "supervisor", "shim": // common names; ours lie beside ocirun, or work in one of our directories
		_, err := os.Lstat(filepath.Join(filepath.Dir(p.Exe), "ocirun"))
		return err == nil || ourDirectory.MatchString(p.Exe) || ourDirectory.MatchString(p.Cwd)
	}
	return false
}

// spare reports whether p is a shim that waits for a container and belongs to a
// supervisor that runs: one without has been left over.
func (p Proc) spare(all map[int]Proc) bool {
	words := strings.Fields(p.Command)
	return filepath.Base(p.Exe) == "shim" && len(words) > 1 && words[1] == "--spare" && filepath.Base(all[p.Parent].Exe) == "supervisor"
}

func processes() ([]Item, error) {
	all, err := Processes()
	if err != nil {
		return nil, err
	}
	host, _ := os.Readlink("/proc/self/ns/mnt")
	var items []Item
	for _, p := range all {
		trace := ""
		if !p.Ours() {
			if trace = mountTrace(p.Pid, host); trace == "" {
				continue
			}
		}
		if p.spare(all) {
			continue
		}
		detail := fmt.Sprintf("%s (cwd %s)", p.Command, p.Cwd)
		if trace != "" {
			detail += " " + trace
		}
		items = append(items, Item{Process, fmt.Sprintf("%d/%d", p.Pid, p.Start), detail})
	}
	sort.Slice(items, func(i, j int) bool { return items[i].Name < items[j].Name })
	return items, nil
}

// mountTrace returns the options or source of a mount that shows one of our
// directories to a process in a mount namespace of its own: the layers of its
// root, or a file bound into it. "" if there is none.
func mountTrace(pid int, host string) string {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if own, err := os.Readlink(filepath.Join(dir, "ns/mnt")); err != nil || own == host {
		return ""
	}
	data, _ := os.ReadFile(filepath.Join(dir, "mountinfo"))
	for _, line := range strings.Split(string(data), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 10 {
			continue
		}
		for _, text := range append([]string{fields[3]}, fields[6:]...) {
			if ourDirectory.MatchString(text) {
				return text
			}
		}
	}
	return ""
}
