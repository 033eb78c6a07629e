package resctrl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

// Group is a control group of resctrl. The zero Group is none.
type Group struct {
	Dir     string `json:"dir,omitempty"`
	Own     bool   `json:"own,omitempty"`     // Dir was made for the container and goes with it
	Monitor string `json:"monitor,omitempty"` // monitoring group, goes with the container
}

// Check finds what is wrong with the fields themselves.
func Check(rdt *specs.LinuxIntelRdt) error {
	if rdt == nil {
		return nil
	}
	if id := rdt.ClosID; id == "." || id == ".." || id != "/" && strings.Contains(id, "/") {
		return invalid("closID", "invalid intelRdt.ClosID %q", id)
	}
	if strings.Contains(rdt.L3CacheSchema, "\n") {
		return invalid("l3CacheSchema", "expected one line, got %q", rdt.L3CacheSchema)
	}
	if b := rdt.MemBwSchema; b != "" && (!strings.HasPrefix(b, "MB:") || strings.Contains(b, "\n")) {
		return invalid("memBwSchema", "expected one line that begins with MB:, got %q", b)
	}
	for i, line := range rdt.Schemata {
		if strings.Contains(line, "\n") {
			return invalid(fmt.Sprintf("schemata[%d]", i), "expected one line, got %q", line)
		}
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	field = "linux.intelRdt." + field
	return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, field, "invalid spec: %s: %w", field, fmt.Errorf(format, args...))
}

// Make finds or makes the group of container id. On failure nothing is left.
func Make(rdt *specs.LinuxIntelRdt, id string) (Group, error) {
	root, err := mountpoint()
	if err != nil {
		return Group{}, err
	}
	return makeBelow(root, rdt, id)
}

// lines are the schemata to write, in the order in which the spec wants them.
func lines(rdt *specs.LinuxIntelRdt) []string {
	var list []string
	for _, line := range append([]string{rdt.L3CacheSchema, rdt.MemBwSchema}, rdt.Schemata...) {
		if line != "" {
			list = append(list, line)
		}
	}
	return list
}

func makeBelow(root string, rdt *specs.LinuxIntelRdt, id string) (g Group, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	named := rdt.ClosID != ""
	g.Dir = filepath.Join(root, rdt.ClosID)
	if !named {
		g.Dir = filepath.Join(root, id)
	}
	wanted := lines(rdt)
	made, err := directory(g.Dir, !named || len(wanted) > 0)
	if err != nil {
		return Group{}, err
	}
	if made {
		undo.Add("remove the resctrl group", func(context.Context) error { return remove(g.Dir) })
	}
	g.Own = made && !named
	if made || !named {
		err = write(g.Dir, wanted)
	} else {
		err = compare(g.Dir, wanted)
	}
	if err != nil || !rdt.EnableMonitoring {
		return g, err
	}
	g.Monitor = filepath.Join(g.Dir, "mon_groups", id)
	if err := os.Mkdir(g.Monitor, 0o755); err != nil {
		return Group{}, fmt.Errorf("linux.intelRdt.enableMonitoring: making the monitoring group: %w", err)
	}
	return g, nil
}

// directory makes a group's directory if it is not there and may be made.
func directory(dir string, may bool) (made bool, err error) {
	if _, err := os.Stat(dir); err == nil {
		return false, nil
	}
	if !may {
		return false, errdefs.FailedPrecondition.Coded(errdefs.SpecInvalid, "linux.intelRdt.closID",
			"linux.intelRdt.closID: clos %s does not exist, and there is no schemata to make it with", dir)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return false, fmt.Errorf("linux.intelRdt: making the group: %w", err)
	}
	return true, nil
}

// write sets the schemata line by line: the kernel says which one it refuses.
func write(dir string, wanted []string) error {
	for _, line := range wanted {
		file, err := os.OpenFile(filepath.Join(dir, "schemata"), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("linux.intelRdt: %w", err)
		}
		_, err = file.WriteString(line + "\n")
		if err := errors.Join(err, file.Close()); err != nil {
			return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "linux.intelRdt", "linux.intelRdt: writing %q to schemata: %w", line, err)
		}
	}
	return nil
}

// compare makes sure that a group of others has the schemata asked for.
func compare(dir string, wanted []string) error {
	if len(wanted) == 0 {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "schemata"))
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	has := map[string]string{}
	for line := range strings.Lines(string(text)) {
		parse(line, has)
	}
	want := map[string]string{}
	for _, line := range wanted {
		parse(line, want)
	}
	for domain, value := range want {
		if has[domain] != value {
			return errdefs.FailedPrecondition.Coded(errdefs.SpecInvalid, "linux.intelRdt",
				"linux.intelRdt: clos %s exists with another schema: %s is %q, expected %q", dir, domain, has[domain], value)
		}
	}
	return nil
}

// parse reads "L3:0=00f;1=f" into L3:0 → f, L3:1 → f.
func parse(line string, into map[string]string) {
	resource, domains, _ := strings.Cut(strings.TrimSpace(line), ":")
	for domain := range strings.SplitSeq(domains, ";") {
		id, value, _ := strings.Cut(strings.TrimSpace(domain), "=")
		value = strings.ToLower(strings.TrimSpace(value))
		if trimmed := strings.TrimLeft(value, "0"); trimmed != "" || value == "" {
			value = trimmed
		} else {
			value = "0"
		}
		into[resource+":"+strings.TrimSpace(id)] = value
	}
}

// Change writes other schemata.
func (g Group) Change(rdt *specs.LinuxIntelRdt) error {
	if err := Check(rdt); err != nil {
		return err
	}
	return write(g.Dir, lines(rdt))
}

// TaskFiles take in the process that writes 0 to each, in this order: a
// monitoring group accepts only processes of its control group.
func (g Group) TaskFiles() []string {
	var files []string
	if g.Dir != "" {
		files = append(files, filepath.Join(g.Dir, "tasks"))
	}
	if g.Monitor != "" {
		files = append(files, filepath.Join(g.Monitor, "tasks"))
	}
	return files
}

// Remove removes what is the container's own; that it is gone is fine.
func (g Group) Remove() error {
	var err error
	if g.Monitor != "" {
		err = remove(g.Monitor)
	}
	if g.Own && g.Dir != "" {
		err = errors.Join(err, remove(g.Dir))
	}
	return err
}

func remove(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the resctrl group: %w", err)
	}
	return nil
}

// Left is the group that an interrupted create of container id may have left.
func Left(rdt *specs.LinuxIntelRdt, id string) Group {
	root, err := mountpoint()
	if rdt == nil || err != nil || Check(rdt) != nil {
		return Group{}
	}
	g := Group{Dir: filepath.Join(root, rdt.ClosID)}
	if rdt.ClosID == "" {
		g.Dir, g.Own = filepath.Join(root, id), true
	}
	if rdt.EnableMonitoring {
		g.Monitor = filepath.Join(g.Dir, "mon_groups", id)
	}
	return g
}

// mountpoint finds resctrl in the runtime's mount namespace.
func mountpoint() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	if path := find(string(mounts)); path != "" {
		return path, nil
	}
	return "", errdefs.FailedPrecondition.Coded(errdefs.SpecInvalid, "linux.intelRdt",
		"linux.intelRdt: intelRdt is specified in config, but Intel RDT is not supported or enabled")
}

// find returns where resctrl is mounted, proc_pid_mountinfo(5).
func find(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		for i := 6; i+1 < len(fields); i++ {
			if fields[i] == "-" && fields[i+1] == "resctrl" {
				return fields[4]
			}
		}
	}
	return ""
}
