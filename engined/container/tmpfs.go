package container

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	apimount "github.com/moby/moby/api/types/mount"

	"github.com/engined/engined/proto/errdefs"
)

// parseTmpfs reads a tmpfs out of HostConfig.Mounts.
func parseTmpfs(asked apimount.Mount, target string, invalid func(string, ...any) error) (Mount, error) {
	if asked.Source != "" {
		return Mount{}, invalid("field Source must not be specified")
	}
	if asked.BindOptions != nil || asked.VolumeOptions != nil {
		return Mount{}, invalid("field BindOptions or VolumeOptions must not be specified")
	}
	var options []string
	if t := asked.TmpfsOptions; t != nil {
		if t.SizeBytes < 0 {
			return Mount{}, invalid("field SizeBytes must not be negative")
		}
		if t.SizeBytes > 0 {
			options = append(options, "size="+strconv.FormatInt(t.SizeBytes, 10))
		}
		if t.Mode != 0 {
			options = append(options, fmt.Sprintf("mode=%o", t.Mode))
		}
		for _, option := range t.Options {
			options = append(options, strings.Join(option, "="))
		}
	}
	if asked.ReadOnly {
		options = append(options, "ro")
	}
	m := tmpfsMount(target, strings.Join(options, ","))
	_, err := tmpfsOptions(m.Options)
	return m, err
}

// flags and values of a tmpfs that a client may set, tmpfs(5).
var (
	tmpfsFlags = []string{
		"defaults", "rw", "ro", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "atime", "noatime",
		"diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "bind", "rbind",
		"private", "rprivate", "shared", "rshared", "slave", "rslave", "remount", "noswap",
	}
	tmpfsValues = []string{"mode", "size", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"}
	refused     = []string{"bind", "rbind", "remount"}
)

// tmpfsOptions completes a client's options by those that keep a tmpfs harmless.
func tmpfsOptions(given string) ([]string, error) {
	options := []string{"noexec", "nosuid", "nodev"}
	if given == "" {
		return options, nil
	}
	for option := range strings.SplitSeq(given, ",") {
		name, value, has := strings.Cut(option, "=")
		known := !has && slices.Contains(tmpfsFlags, name) || has && value != "" && slices.Contains(tmpfsValues, name)
		if !known || slices.Contains(refused, name) {
			return nil, errdefs.InvalidArgument.Errorf("invalid tmpfs option %q", option)
		}
		// exec takes noexec away, and so on.
		options = slices.DeleteFunc(options, func(have string) bool { return have == "no"+name })
		options = append(options, option)
	}
	return options, nil
}
