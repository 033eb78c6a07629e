package client

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// settings are what a container is made of, as given on the command line.
type settings struct {
	attach bool // its output is wanted

	interactive, tty, autoRemove, readOnly, privileged, init bool
	name, user, workdir, hostname, network                   string
	entrypoint, stopSignal, restart, pid, ipc, uts           string
	memory, swap, cpus, cpuset, shares, pidsLimit, shmSize   string
	env, envFiles, volumes, labels, tmpfs                    []string
	capAdd, capDrop, dns, hosts, security, ulimits, sysctls  []string
	devices, groups                                          []string
}

func (o *settings) define(f *flags) {
	f.truth(&o.interactive, "interactive", "i", "keep standard input open")
	f.truth(&o.tty, "tty", "t", "give it a terminal")
	f.truth(&o.autoRemove, "rm", "", "remove it when it ends")
	f.truth(&o.readOnly, "read-only", "", "mount its root read-only")
	f.truth(&o.privileged, "privileged", "", "give it all that root has")
	f.truth(&o.init, "init", "", "run an init in it")
	for _, option := range []struct {
		to                 *string
		long, short, usage string
	}{
		{&o.name, "name", "", "its `name`"},
		{&o.user, "user", "u", "`USER[:GROUP]` to run as"},
		{&o.workdir, "workdir", "w", "`directory` to run in"},
		{&o.hostname, "hostname", "h", "its host `name`"},
		{&o.network, "network", "", "`network`: bridge, host, none or container:NAME"},
		{&o.network, "net", "", "same as --network"},
		{&o.entrypoint, "entrypoint", "", "`command` in place of the image's entry point"},
		{&o.stopSignal, "stop-signal", "", "`signal` that stops it"},
		{&o.restart, "restart", "", "restart `policy`: no, on-failure[:N], always, unless-stopped"},
		{&o.pid, "pid", "", "PID namespace `mode`"},
		{&o.ipc, "ipc", "", "IPC namespace `mode`"},
		{&o.uts, "uts", "", "UTS namespace `mode`"},
		{&o.memory, "memory", "m", "memory limit in `bytes` (k, m, g)"},
		{&o.swap, "memory-swap", "", "memory and swap limit in `bytes`, -1: none"},
		{&o.cpus, "cpus", "", "`number` of CPUs, as 1.5"},
		{&o.cpuset, "cpuset-cpus", "", "`CPUs` to run on, as 0-2,4"},
		{&o.shares, "cpu-shares", "", "relative `weight`"},
		{&o.pidsLimit, "pids-limit", "", "`number` of processes, -1: any"},
		{&o.shmSize, "shm-size", "", "size of /dev/shm in `bytes`"},
	} {
		f.text(option.to, option.long, option.short, option.usage)
	}
	o.defineLists(f)
}

func (o *settings) defineLists(f *flags) {
	for _, option := range []struct {
		to                 *[]string
		long, short, usage string
	}{
		{&o.env, "env", "e", "environment: `NAME=VALUE`, or NAME of ours"},
		{&o.envFiles, "env-file", "", "`file` with one of them a line"},
		{&o.volumes, "volume", "v", "bind mount: `/HOST:/CONTAINER[:OPTIONS]`"},
		{&o.labels, "label", "l", "`KEY=VALUE`"},
		{&o.tmpfs, "tmpfs", "", "mount a tmpfs: `/CONTAINER[:OPTIONS]`"},
		{&o.capAdd, "cap-add", "", "`capability` to add"},
		{&o.capDrop, "cap-drop", "", "`capability` to drop"},
		{&o.dns, "dns", "", "name server's `address`"},
		{&o.hosts, "add-host", "", "`NAME:ADDRESS` for /etc/hosts"},
		{&o.security, "security-opt", "", "security `option`"},
		{&o.ulimits, "ulimit", "", "`NAME=SOFT[:HARD]`"},
		{&o.sysctls, "sysctl", "", "`NAME=VALUE`"},
		{&o.devices, "device", "", "`/HOST[:/CONTAINER[:rwm]]`"},
		{&o.groups, "group-add", "", "another `group` to run with"},
	} {
		f.list(option.to, option.long, option.short, option.usage)
	}
}

// request makes the API's request of the settings.
func (o *settings) request(image string, command []string) (client.ContainerCreateOptions, error) {
	env, err := o.environment()
	if err != nil {
		return client.ContainerCreateOptions{}, err
	}
	config := &apicontainer.Config{
		Image: image, Cmd: command, Env: env, Labels: pairsOf(o.labels),
		Hostname: o.hostname, User: o.user, WorkingDir: o.workdir, StopSignal: o.stopSignal,
		Tty: o.tty, OpenStdin: o.interactive, StdinOnce: o.interactive && o.attach,
		AttachStdin: o.interactive && o.attach, AttachStdout: o.attach, AttachStderr: o.attach,
	}
	if o.entrypoint != "" {
		config.Entrypoint = []string{o.entrypoint}
	}
	host, err := o.host()
	return client.ContainerCreateOptions{Name: o.name, Config: config, HostConfig: host}, err
}

func (o *settings) host() (*apicontainer.HostConfig, error) {
	host := &apicontainer.HostConfig{
		AutoRemove: o.autoRemove, ReadonlyRootfs: o.readOnly, Privileged: o.privileged,
		NetworkMode: apicontainer.NetworkMode(o.network), PidMode: apicontainer.PidMode(o.pid),
		IpcMode: apicontainer.IpcMode(o.ipc), UTSMode: apicontainer.UTSMode(o.uts),
		Binds: o.volumes, CapAdd: o.capAdd, CapDrop: o.capDrop, ExtraHosts: o.hosts,
		SecurityOpt: o.security, GroupAdd: o.groups, Sysctls: pairsOf(o.sysctls),
	}
	if o.init {
		host.Init = &o.init
	}
	for _, mount := range o.tmpfs {
		if host.Tmpfs == nil {
			host.Tmpfs = make(map[string]string)
		}
		path, options, _ := strings.Cut(mount, ":")
		host.Tmpfs[path] = options
	}
	for _, step := range []func(*apicontainer.HostConfig) error{o.limits, o.policy, o.addresses, o.nodes} {
		if err := step(host); err != nil {
			return nil, err
		}
	}
	return host, nil
}

// limits reads what has a unit or a number.
func (o *settings) limits(host *apicontainer.HostConfig) error {
	r := &host.Resources
	r.CpusetCpus = o.cpuset
	for _, size := range []struct {
		name, given string
		to          *int64
	}{{"memory", o.memory, &r.Memory}, {"shm-size", o.shmSize, &host.ShmSize}, {"memory-swap", o.swap, &r.MemorySwap}} {
		if size.given == "" {
			continue
		}
		if size.name == "memory-swap" && size.given == "-1" {
			*size.to = -1
			continue
		}
		bytes, err := units.RAMInBytes(size.given)
		if err != nil {
			return fmt.Errorf("invalid argument %q for --%s: %w", size.given, size.name, err)
		}
		*size.to = bytes
	}
	return o.counts(r)
}

func (o *settings) counts(r *apicontainer.Resources) (err error) {
	if o.cpus != "" {
		cpus, err := strconv.ParseFloat(o.cpus, 64)
		if err != nil || cpus < 0 {
			return fmt.Errorf("invalid argument %q for --cpus: expected a number", o.cpus)
		}
		r.NanoCPUs = int64(cpus * 1e9)
	}
	if o.shares != "" {
		if r.CPUShares, err = strconv.ParseInt(o.shares, 10, 64); err != nil {
			return fmt.Errorf("invalid argument %q for --cpu-shares: expected an integer", o.shares)
		}
	}
	if o.pidsLimit != "" {
		limit, err := strconv.ParseInt(o.pidsLimit, 10, 64)
		if err != nil {
			return fmt.Errorf("invalid argument %q for --pids-limit: expected an integer", o.pidsLimit)
		}
		r.PidsLimit = &limit
	}
	for _, given := range o.ulimits {
		limit, err := units.ParseUlimit(given)
		if err != nil {
			return fmt.Errorf("invalid argument %q for --ulimit: %w", given, err)
		}
		r.Ulimits = append(r.Ulimits, limit)
	}
	return nil
}

func (o *settings) policy(host *apicontainer.HostConfig) error {
	name, count, counted := strings.Cut(o.restart, ":")
	host.RestartPolicy.Name = apicontainer.RestartPolicyMode(name)
	if !counted {
		return nil
	}
	var err error
	if host.RestartPolicy.MaximumRetryCount, err = strconv.Atoi(count); err != nil {
		return fmt.Errorf("invalid argument %q for --restart: expected an integer after the colon", o.restart)
	}
	return nil
}

func (o *settings) addresses(host *apicontainer.HostConfig) error {
	for _, given := range o.dns {
		address, err := netip.ParseAddr(given)
		if err != nil {
			return fmt.Errorf("invalid argument %q for --dns: %w", given, err)
		}
		host.DNS = append(host.DNS, address)
	}
	return nil
}

func (o *settings) nodes(host *apicontainer.HostConfig) error {
	for _, given := range o.devices {
		parts := strings.Split(given, ":")
		device := apicontainer.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
		switch len(parts) {
		case 1:
		case 3:
			device.CgroupPermissions = parts[2]
			fallthrough
		case 2:
			device.PathInContainer = parts[1]
		default:
			return fmt.Errorf("invalid argument %q for --device: expected /HOST[:/CONTAINER[:rwm]]", given)
		}
		host.Devices = append(host.Devices, device)
	}
	return nil
}

// environment reads files and options. A name alone takes our own value.
func (o *settings) environment() ([]string, error) {
	var entries []string
	for _, path := range o.envFiles {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(content)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				entries = append(entries, line)
			}
		}
	}
	var env []string
	for _, entry := range append(entries, o.env...) {
		if !strings.Contains(entry, "=") {
			value, set := os.LookupEnv(entry)
			if !set {
				continue
			}
			entry += "=" + value
		}
		env = append(env, entry)
	}
	return env, nil
}

// pairsOf splits KEY=VALUE; a key alone has an empty value.
func pairsOf(entries []string) map[string]string {
	if len(entries) == 0 {
		return nil
	}
	pairs := make(map[string]string, len(entries))
	for _, entry := range entries {
		key, value, _ := strings.Cut(entry, "=")
		pairs[key] = value
	}
	return pairs
}
