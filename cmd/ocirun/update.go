package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/proto/errdefs"
)

var updateCommand = command{
	name: "update", args: "<container-id>", min: 1, max: 1,
	usage: "update container resource constraints",
	bind: func(f *flags) action {
		file := f.text("resources", "r", "", `path to the file containing the resources to update or '-' to read from the standard input

The accepted format is linux.resources of the OCI spec (unchanged values can be
omitted):

{
  "memory": { "limit": 0, "reservation": 0, "swap": 0, "checkBeforeUpdate": false },
  "cpu": { "shares": 0, "quota": 0, "burst": 0, "period": 0, "realtimeRuntime": 0,
           "realtimePeriod": 0, "cpus": "", "mems": "", "idle": 0 },
  "blockIO": { "weight": 0, "weightDevice": [], "throttleReadBpsDevice": [],
               "throttleWriteBpsDevice": [], "throttleReadIOPSDevice": [],
               "throttleWriteIOPSDevice": [] },
  "pids": { "limit": 1 },
  "unified": { "file": "text" }
}

Note: if data is to be read from a file or the standard input, all
other options are ignored.`)
		limits := bindLimits(f)
		l3Cache := f.text("l3-cache-schema", "", "", "The string of Intel RDT/CAT L3 cache schema")
		bandwidth := f.text("mem-bw-schema", "", "", "The string of Intel RDT/MBA memory bandwidth schema")
		return func(c *call) error {
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			changes := &specs.LinuxResources{}
			if *file != "" {
				err = readResources(*file, changes)
			} else {
				err = limits.apply(f, changes)
			}
			if err != nil {
				return err
			}
			if *l3Cache != "" || *bandwidth != "" {
				if err := libcontainer.UpdateRdt(container, *l3Cache, *bandwidth); err != nil {
					return err
				}
			}
			return libcontainer.Update(context.Background(), container, changes)
		}
	},
}

func readResources(path string, changes *specs.LinuxResources) error {
	from := io.Reader(os.Stdin)
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	if err := json.NewDecoder(from).Decode(changes); err != nil {
		return errdefs.InvalidArgument.Errorf("reading resources from %s: %w", path, err)
	}
	return nil
}

// limit is one option and where its value goes.
type limit struct {
	name string
	text *string
	put  func(*specs.LinuxResources, string) error
}

type limits []limit

// bindLimits declares runc's options.
func bindLimits(f *flags) limits {
	var list limits
	add := func(name, usage string, put func(*specs.LinuxResources, string) error) {
		list = append(list, limit{name, f.text(name, "", "", usage), put})
	}
	add("blkio-weight", "Specifies per cgroup weight, range is from 10 to 1000", putWeight)
	add("cpu-period", "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default", putUnsigned(func(r *specs.LinuxResources) **uint64 { return &cpu(r).Period }))
	add("cpu-quota", "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period", putSigned(func(r *specs.LinuxResources) **int64 { return &cpu(r).Quota }))
	add("cpu-burst", "CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst a given period", putUnsigned(func(r *specs.LinuxResources) **uint64 { return &cpu(r).Burst }))
	add("cpu-share", "CPU shares (relative weight vs. other containers)", putUnsigned(func(r *specs.LinuxResources) **uint64 { return &cpu(r).Shares }))
	add("cpu-rt-period", "CPU realtime period to be used for hardcapping (in usecs). 0 to use system default", putUnsigned(func(r *specs.LinuxResources) **uint64 { return &cpu(r).RealtimePeriod }))
	add("cpu-rt-runtime", "CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period", putSigned(func(r *specs.LinuxResources) **int64 { return &cpu(r).RealtimeRuntime }))
	add("cpu-idle", "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE", putSigned(func(r *specs.LinuxResources) **int64 { return &cpu(r).Idle }))
	add("cpuset-cpus", "CPU(s) to use", func(r *specs.LinuxResources, text string) error { cpu(r).Cpus = text; return nil })
	add("cpuset-mems", "Memory node(s) to use", func(r *specs.LinuxResources, text string) error { cpu(r).Mems = text; return nil })
	add("memory", "Memory limit (in bytes)", putBytes(func(r *specs.LinuxResources) **int64 { return &memory(r).Limit }))
	add("memory-reservation", "Memory reservation or soft_limit (in bytes)", putBytes(func(r *specs.LinuxResources) **int64 { return &memory(r).Reservation }))
	add("memory-swap", "Total memory usage (memory + swap); set '-1' to enable unlimited swap", putBytes(func(r *specs.LinuxResources) **int64 { return &memory(r).Swap }))
	add("pids-limit", "Maximum number of pids allowed in the container", putPids)
	add("kernel-memory", "(obsoleted; do not use)", ignoreBytes)
	add("kernel-memory-tcp", "(obsoleted; do not use)", ignoreBytes)
	return list
}

// apply puts the given options' values into changes.
func (l limits) apply(f *flags, changes *specs.LinuxResources) error {
	for _, one := range l {
		if !f.given(one.name, "") || *one.text == "" {
			continue
		}
		if err := one.put(changes, *one.text); err != nil {
			return errdefs.InvalidArgument.Errorf("invalid value for %s: %w", one.name, err)
		}
	}
	return nil
}

func cpu(r *specs.LinuxResources) *specs.LinuxCPU {
	if r.CPU == nil {
		r.CPU = &specs.LinuxCPU{}
	}
	return r.CPU
}

func memory(r *specs.LinuxResources) *specs.LinuxMemory {
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	return r.Memory
}

func putUnsigned(field func(*specs.LinuxResources) **uint64) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		n, err := strconv.ParseUint(text, 10, 64)
		*field(r) = &n
		return err
	}
}

func putSigned(field func(*specs.LinuxResources) **int64) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		n, err := strconv.ParseInt(text, 10, 64)
		*field(r) = &n
		return err
	}
}

// putBytes takes 512m and the like, and -1 for no limit.
func putBytes(field func(*specs.LinuxResources) **int64) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		n := int64(-1)
		var err error
		if text != "-1" {
			n, err = parseBytes(text)
		}
		*field(r) = &n
		return err
	}
}

// ignoreBytes is for limits that Linux no longer has.
func ignoreBytes(_ *specs.LinuxResources, text string) error {
	if text != "-1" {
		if _, err := parseBytes(text); err != nil {
			return err
		}
	}
	slog.Warn("Kernel memory settings are ignored and will be removed")
	return nil
}

func putWeight(r *specs.LinuxResources, text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	weight := uint16(min(n, math.MaxUint16))
	r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	return err
}

func putPids(r *specs.LinuxResources, text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	r.Pids = &specs.LinuxPids{Limit: &n}
	return err
}
