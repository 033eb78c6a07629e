package leftovers

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Prefix begins the name of everything that the tests make: directories,
// container ids of bundles, bridges.
const Prefix = "eit-"

// Kinds of items.
const (
	Process   = "process"
	Mount     = "mount"
	Cgroup    = "cgroup"
	Netns     = "netns"
	Link      = "link"
	Table     = "nftables"
	Directory = "directory"
)

// Item is one thing found. Two Items are the same thing if they are equal.
type Item struct {
	Kind   string
	Name   string // pid/start time, mount point, cgroup directory, link, table, directory
	Detail string // what else identifies it: command line, mount options, pids
}

func (i Item) String() string {
	return strings.TrimSpace(fmt.Sprintf("%-9s %s  %s", i.Kind, i.Name, i.Detail))
}

// Mentions reports whether i's name or detail names dir or something below it.
func (i Item) Mentions(dir string) bool {
	for _, text := range []string{i.Name, i.Detail} {
		if mentions(text, dir) {
			return true
		}
	}
	return false
}

func mentions(text, dir string) bool {
	for {
		_, after, found := strings.Cut(text, dir)
		if !found {
			return false
		}
		if after == "" || strings.ContainsRune("/,: )\t\x00", rune(after[0])) {
			return true
		}
		text = after
	}
}

var (
	ourDirectory = regexp.MustCompile(`/(?:` + Prefix + `[^/,: ]+|engined[^/,: ]*|ocirun[^/,: ]*|\.run)(?:[/,: ]|$)`)
	// The parent of all containers, engined itself, is nobody's.
	ourCgroup = regexp.MustCompile(`^(?:[0-9a-f]{64}|` + Prefix + `.*|engined.+|ocirun.+)$`)
	ourName   = regexp.MustCompile(`^(?:` + Prefix + `|engined|ocirun)`)
	ourLink   = regexp.MustCompile(`^(?:veth[0-9a-f]{8}|` + Prefix + `.*|engined.*)$`)
)

// Look returns everything that looks like ours.
func Look() ([]Item, error) {
	var items []Item
	for _, look := range []func() ([]Item, error){processes, mounts, cgroups, namespaces, links, tables, directories} {
		found, err := look()
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	return items, nil
}

func mounts() ([]Item, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var items []Item
	for _, line := range strings.Split(string(data), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 10 {
			continue
		}
		point, rest := fields[4], strings.Join(fields[5:], " ")
		if ourDirectory.MatchString(point) || ourDirectory.MatchString(rest) {
			items = append(items, Item{Mount, point, rest})
		}
	}
	return items, nil
}

// cgroups walks every mounted hierarchy. A co-mounted or bound one is walked
// once for each mount point.
func cgroups() ([]Item, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, err
	}
	var items []Item
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil { // it went away while we looked
				return nil //nolint:nilerr // as said
			}
			if entry.IsDir() && path != root && ourCgroup.MatchString(entry.Name()) {
				pids, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
				items = append(items, Item{Cgroup, path, strings.Join(strings.Fields(string(pids)), " ")})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("walking cgroups at %s: %w", root, err)
		}
	}
	return items, nil
}

func cgroupRoots() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, line := range strings.Split(string(data), "\n") {
		left, right, found := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		if found && len(fields) > 4 && strings.HasPrefix(right, "cgroup") {
			roots = append(roots, fields[4])
		}
	}
	return roots, nil
}

func namespaces() ([]Item, error) { return named(Netns, "/run/netns", ourName) }

func links() ([]Item, error) {
	found, err := named(Link, "/sys/class/net", ourLink)
	for i, item := range found {
		if master, err := os.Readlink(filepath.Join(item.Name, "master")); err == nil {
			found[i].Detail = "master " + filepath.Base(master)
		}
		found[i].Name = filepath.Base(item.Name)
	}
	return found, err
}

func tables() ([]Item, error) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		return nil, nil //nolint:nilerr // without nft there is nothing to look with
	}
	out, err := exec.Command(nft, "list", "tables").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("nft list tables: %w: %s", err, out)
	}
	var items []Item
	for _, line := range strings.Split(string(out), "\n") {
		if fields := strings.Fields(line); len(fields) == 3 && ourName.MatchString(fields[2]) {
			items = append(items, Item{Kind: Table, Name: fields[2], Detail: fields[1]})
		}
	}
	return items, nil
}

func directories() ([]Item, error) {
	var items []Item
	for _, parent := range []string{"/tmp", "/var/tmp", "/run", "/dev/shm"} {
		found, err := named(Directory, parent, ourName)
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	return items, nil
}

// named returns the entries of dir whose name matches. No dir, no entries.
func named(kind, dir string, pattern *regexp.Regexp) ([]Item, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	var items []Item
	for _, entry := range entries {
		if pattern.MatchString(entry.Name()) {
			items = append(items, Item{Kind: kind, Name: filepath.Join(dir, entry.Name())})
		}
	}
	return items, err
}
