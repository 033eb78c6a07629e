package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/blkiodev"
	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// sourceExists checks the source of a bind that is not to be made.
func sourceExists(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return errdefs.InvalidArgument.Errorf("bind source path does not exist: %s", path)
	} else if err != nil {
		return err
	}
	return nil
}

// copyOwner gives a directory the owner and mode of the one it stands for.
func copyOwner(dir string, like os.FileInfo) error {
	if stat, ok := like.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(dir, int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, like.Mode())
}

// findDevices looks up the devices that a container is given: those asked for,
// or for a privileged one all that the host has.
func findDevices(h *apicontainer.HostConfig) (devices []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, err error) {
	if h.Privileged {
		devices, err = devicesBelow("/dev", "/dev")
		if err != nil {
			return nil, nil, err
		}
	}
	for _, mapping := range h.Devices {
		found, err := mappedDevices(mapping)
		if err != nil {
			return nil, nil, errdefs.InvalidArgument.Errorf("error gathering device information while adding custom device %q: %w", mapping.PathOnHost, err)
		}
		for _, device := range found {
			devices = append(devices, device)
			rules = append(rules, specs.LinuxDeviceCgroup{
				Allow: true, Type: device.Type, Major: &device.Major, Minor: &device.Minor, Access: mapping.CgroupPermissions,
			})
		}
	}
	for _, text := range h.DeviceCgroupRules {
		rule, err := parseDeviceRule(text)
		if err != nil {
			return nil, nil, err
		}
		rules = append(rules, rule)
	}
	return devices, rules, nil
}

func mappedDevices(mapping apicontainer.DeviceMapping) ([]specs.LinuxDevice, error) {
	source, err := filepath.EvalSymlinks(mapping.PathOnHost)
	if err != nil {
		return nil, err
	}
	if strings.Trim(mapping.CgroupPermissions, "rwm") != "" {
		return nil, fmt.Errorf("permissions %q: expected some of rwm", mapping.CgroupPermissions)
	}
	target := mapping.PathInContainer
	if target == "" {
		target = mapping.PathOnHost
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return devicesBelow(source, target)
	}
	device, is := deviceOf(info, target)
	if !is {
		return nil, errors.New("not a device node")
	}
	return []specs.LinuxDevice{device}, nil
}

// notDevices are directories of /dev that every container has its own of.
var notDevices = map[string]bool{"pts": true, "shm": true, "fd": true, "mqueue": true, ".lxc": true, ".lxd-mounts": true, ".udev": true}

func devicesBelow(source, target string) (devices []specs.LinuxDevice, err error) {
	err = filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone meanwhile
			return nil
		case err != nil:
			return err
		case entry.IsDir() && notDevices[entry.Name()]:
			return fs.SkipDir
		case entry.Name() == "console" || entry.Type()&fs.ModeDevice == 0:
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile
		}
		if device, is := deviceOf(info, target+strings.TrimPrefix(path, source)); is {
			devices = append(devices, device)
		}
		return nil
	})
	return devices, err
}

func deviceOf(info os.FileInfo, target string) (specs.LinuxDevice, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeDevice == 0 {
		return specs.LinuxDevice{}, false
	}
	typ := "b"
	if info.Mode()&fs.ModeCharDevice != 0 {
		typ = "c"
	}
	mode := info.Mode().Perm()
	return specs.LinuxDevice{
		Path: target, Type: typ,
		Major: int64(unix.Major(stat.Rdev)), Minor: int64(unix.Minor(stat.Rdev)),
		FileMode: &mode, UID: &stat.Uid, GID: &stat.Gid,
	}, true
}

// parseDeviceRule reads TYPE MAJOR:MINOR ACCESS, as "c 1:* rwm".
func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	invalid := errdefs.InvalidArgument.Errorf("invalid device cgroup rule format: '%s'", text)
	fields := strings.Fields(text)
	if len(fields) != 3 || !strings.Contains("abc", fields[0]) || len(fields[0]) != 1 || strings.Trim(fields[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, invalid
	}
	majorText, minorText, _ := strings.Cut(fields[1], ":")
	major, okMajor := deviceNumber(majorText)
	minor, okMinor := deviceNumber(minorText)
	if !okMajor || !okMinor {
		return specs.LinuxDeviceCgroup{}, invalid
	}
	return specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Major: major, Minor: minor, Access: fields[2]}, nil
}

func deviceNumber(text string) (*int64, bool) {
	if text == "*" {
		all := int64(-1)
		return &all, true
	}
	number, err := strconv.ParseInt(text, 10, 64)
	return &number, err == nil && number >= 0
}

// findBlockIO looks up the numbers of the block devices that limits are for.
func findBlockIO(h *apicontainer.HostConfig) (*specs.LinuxBlockIO, error) {
	limits := &specs.LinuxBlockIO{}
	if h.BlkioWeight > 0 {
		limits.Weight = &h.BlkioWeight
	}
	for _, w := range h.BlkioWeightDevice {
		major, minor, err := blockDevice(w.Path)
		if err != nil {
			return nil, err
		}
		device := specs.LinuxWeightDevice{Weight: &w.Weight}
		device.Major, device.Minor = major, minor
		limits.WeightDevice = append(limits.WeightDevice, device)
	}
	for _, list := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{h.BlkioDeviceReadBps, &limits.ThrottleReadBpsDevice},
		{h.BlkioDeviceWriteBps, &limits.ThrottleWriteBpsDevice},
		{h.BlkioDeviceReadIOps, &limits.ThrottleReadIOPSDevice},
		{h.BlkioDeviceWriteIOps, &limits.ThrottleWriteIOPSDevice},
	} {
		for _, t := range list.from {
			major, minor, err := blockDevice(t.Path)
			if err != nil {
				return nil, err
			}
			device := specs.LinuxThrottleDevice{Rate: t.Rate}
			device.Major, device.Minor = major, minor
			*list.to = append(*list.to, device)
		}
	}
	return limits, nil
}

func blockDevice(path string) (major, minor int64, err error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return 0, 0, errdefs.InvalidArgument.Errorf("block device %s: %w", path, err)
	}
	return int64(unix.Major(stat.Rdev)), int64(unix.Minor(stat.Rdev)), nil
}

// ownerOf is a file's owner as a number.
func ownerOf(info os.FileInfo) string {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return strconv.FormatUint(uint64(stat.Uid), 10)
	}
	return "?"
}
