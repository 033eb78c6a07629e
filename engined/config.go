package engined

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/proto/errdefs"
)

// Places, unless configured otherwise.
const (
	DefaultHost       = "unix:///run/engined.sock"
	DefaultDataRoot   = "/var/lib/engined"
	DefaultExecRoot   = "/run/engined"
	DefaultPidfile    = "/run/engined.pid"
	DefaultConfigFile = "/etc/engined/daemon.json"
)

// Config is engined's configuration, made by [Load] and never changed after
// it: a reload makes another one.
type Config struct {
	File     string
	Validate bool // only say whether the configuration is good
	Version  bool // only say the version

	Hosts    []string
	Group    string // of the unix socket; "": docker if there is such a group
	DataRoot string
	ExecRoot string
	Pidfile  string

	Debug    bool
	LogLevel string
	Labels   []string

	TLS, TLSVerify             bool
	TLSCACert, TLSCert, TLSKey string

	Supervisor      string // address of one that runs; "": engined's own
	Runtime         string // path of the OCI runtime; "": ocirun beside engined or in PATH
	ShutdownTimeout int    // seconds for requests to end

	StorageDriver  string
	StorageOptions []string
	LogDriver      string
	LogOptions     map[string]string

	InsecureRegistries  []string // HOST[:PORT] or CIDR
	RegistryMirrors     []string // URLs, for Docker Hub; HOST=URL for others
	RegistryCerts       []string // directories with HOST/*.crt, *.cert, *.key
	MaxDownloads        int      // at the same time
	MaxUploads          int      // at the same time
	MaxDownloadAttempts int

	Bridge    string // name of the link, "none": no bridge network
	BridgeIP  string // its address and prefix
	IPForward bool
	IPTables  bool // make firewall rules
}

func defaults() Config {
	return Config{
		File:            DefaultConfigFile,
		DataRoot:        DefaultDataRoot,
		ExecRoot:        DefaultExecRoot,
		Pidfile:         DefaultPidfile,
		LogLevel:        "info",
		LogDriver:       "json-file",
		ShutdownTimeout: 15,
		MaxDownloads:    registry.DefaultDownloads, MaxUploads: registry.DefaultUploads, MaxDownloadAttempts: registry.DefaultAttempts,
		TLSCACert: "/etc/engined/ca.pem",
		TLSCert:   "/etc/engined/cert.pem",
		TLSKey:    "/etc/engined/key.pem",
		IPForward: true,
		IPTables:  true,
	}
}

// setting is one row of the configuration: its name in daemon.json and on the
// command line, as dockerd has them where it has them.
type setting struct {
	key    string // in daemon.json; "": only on the command line
	flag   string
	short  string
	value  value
	reload bool // HUP changes it
	usage  string
}

func (c *Config) settings() []setting {
	return []setting{
		{"", "config-file", "", text{&c.File}, false, "`file` to read settings from"},
		{"", "validate", "", truth{&c.Validate}, false, "check the configuration and exit"},
		{"", "version", "v", truth{&c.Version}, false, "print the version and exit"},
		{"hosts", "host", "H", list{&c.Hosts}, false, "`address` to listen on: unix://PATH, tcp://HOST:PORT or fd:// (repeatable; default " + DefaultHost + ")"},
		{"group", "group", "", text{&c.Group}, false, "`group` of the unix socket (default docker, if it exists)"},
		{"data-root", "data-root", "", text{&c.DataRoot}, false, "`directory` of what is kept"},
		{"exec-root", "exec-root", "", text{&c.ExecRoot}, false, "`directory` of what lives until the next boot"},
		{"pidfile", "pidfile", "p", text{&c.Pidfile}, false, "`file` for the process id"},
		{"debug", "debug", "D", truth{&c.Debug}, true, "log at debug level"},
		{"log-level", "log-level", "l", text{&c.LogLevel}, true, "`level` of the daemon's own log: debug, info, warn, error or fatal"},
		{"labels", "label", "", list{&c.Labels}, true, "`KEY=VALUE` shown in info (repeatable)"},
		{"tls", "tls", "", truth{&c.TLS}, false, "use TLS on tcp listeners"},
		{"tlsverify", "tlsverify", "", truth{&c.TLSVerify}, false, "use TLS and demand a client certificate of the CA"},
		{"tlscacert", "tlscacert", "", text{&c.TLSCACert}, false, "`file` with the CA's certificate"},
		{"tlscert", "tlscert", "", text{&c.TLSCert}, false, "`file` with the daemon's certificate"},
		{"tlskey", "tlskey", "", text{&c.TLSKey}, false, "`file` with the daemon's key"},
		{"supervisor", "supervisor", "", text{&c.Supervisor}, false, "`address` of a supervisor that runs already"},
		{"runtime", "runtime", "", text{&c.Runtime}, false, "`path` of the OCI runtime (default ocirun)"},
		{"shutdown-timeout", "shutdown-timeout", "", number{&c.ShutdownTimeout}, true, "`seconds` for requests to end when engined stops"},
		{"storage-driver", "storage-driver", "s", text{&c.StorageDriver}, false, "storage `driver`: overlay2, btrfs, vfs or devicemapper (default: the one that has data, else the first of the first three that works; $DOCKER_DRIVER overrides)"},
		{"storage-opts", "storage-opt", "", list{&c.StorageOptions}, false, "`option` of the storage driver (repeatable)"},
		{"log-driver", "log-driver", "", text{&c.LogDriver}, false, "log `driver` of new containers"},
		{"log-opts", "log-opt", "", pairs{&c.LogOptions}, false, "`KEY=VALUE` for the log driver (repeatable)"},
		{"insecure-registries", "insecure-registry", "", list{&c.InsecureRegistries}, false, "`HOST[:PORT]` or network to talk to without verified TLS (repeatable)"},
		{"registry-mirrors", "registry-mirror", "", list{&c.RegistryMirrors}, false, "`[HOST=]URL` to ask before Docker Hub, or that registry (repeatable)"},
		{"registry-certs", "registry-certs", "", list{&c.RegistryCerts}, false, "`directory` with HOST/*.crt, *.cert and *.key for registries (repeatable; default /etc/engined/certs.d and /etc/docker/certs.d)"},
		{"max-concurrent-downloads", "max-concurrent-downloads", "", number{&c.MaxDownloads}, false, "`number` of layers downloaded at the same time"},
		{"max-concurrent-uploads", "max-concurrent-uploads", "", number{&c.MaxUploads}, false, "`number` of layers uploaded at the same time"},
		{"max-download-attempts", "max-download-attempts", "", number{&c.MaxDownloadAttempts}, false, "`number` of attempts before a download fails"},
		{"bridge", "bridge", "b", text{&c.Bridge}, false, "`name` of the bridge's link, which is made if it is not there; none: no bridge network"},
		{"bip", "bip", "", text{&c.BridgeIP}, false, "the bridge's address and prefix, as `CIDR` (default: those of a bridge that is there, else 172.18.0.1/16)"},
		{"ip-forward", "ip-forward", "", truth{&c.IPForward}, false, "enable net.ipv4.ip_forward"},
		{"iptables", "iptables", "", truth{&c.IPTables}, false, "make firewall rules"},
	}
}

// Load makes the configuration from command line and file. Usage goes to
// messages; asking for it gives flag.ErrHelp.
func Load(args []string, messages io.Writer) (Config, error) {
	c := defaults()
	settings := c.settings()
	given, err := parseFlags(settings, args, messages)
	if err != nil {
		return c, err
	}
	if err := c.readFile(settings, given); err != nil {
		return c, fmt.Errorf("configuration file %s: %w", c.File, err)
	}
	return c, c.complete()
}

// parseFlags sets what the command line gives and returns those flags' names.
func parseFlags(settings []setting, args []string, messages io.Writer) (map[string]bool, error) {
	flags := flag.NewFlagSet("engined", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.Usage = func() {
		fmt.Fprintf(messages, "Usage: engined [FLAGS]             the daemon\n       engined COMMAND [ARGUMENTS] its client, see engined help\n\nFlags:\n")
		flags.PrintDefaults()
	}
	long := make(map[string]string)
	for _, s := range settings {
		flags.Var(s.value, s.flag, s.usage)
		if s.short != "" {
			flags.Var(s.value, s.short, "short for --"+s.flag)
			long[s.short] = s.flag
		}
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, errdefs.InvalidArgument.Errorf("%w", err)
	}
	if flags.NArg() > 0 {
		return nil, errdefs.InvalidArgument.Errorf("unexpected argument %q: the daemon takes flags only", flags.Arg(0))
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) {
		if name, short := long[f.Name]; short {
			given[name] = true
		}
		given[f.Name] = true
	})
	return given, nil
}

// readFile sets what the file gives. No file is an error only if one was named.
func (c *Config) readFile(settings []setting, given map[string]bool) error {
	content, err := os.ReadFile(c.File)
	if errors.Is(err, os.ErrNotExist) && !given["config-file"] {
		return nil
	}
	if err != nil {
		return err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(content, &keys); err != nil {
		return errdefs.InvalidArgument.Errorf("expected a JSON object: %w", err)
	}
	var twice []string
	for _, s := range settings {
		raw, there := keys[s.key]
		if !there || s.key == "" {
			continue
		}
		delete(keys, s.key)
		if given[s.flag] {
			twice = append(twice, fmt.Sprintf("%s: (from flag: %s, from file: %s)", s.key, s.value, raw))
			continue
		}
		if err := s.value.decode(raw); err != nil {
			return errdefs.InvalidArgument.Errorf("%s: %w", s.key, err)
		}
	}
	if len(keys) > 0 {
		return errdefs.InvalidArgument.Errorf("the following directives don't match any configuration option: %s", strings.Join(sortedKeys(keys), ", "))
	}
	if len(twice) > 0 {
		return errdefs.InvalidArgument.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(twice, ", "))
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// complete checks the configuration and makes paths absolute.
func (c *Config) complete() error {
	if len(c.Hosts) == 0 {
		c.Hosts = []string{DefaultHost}
	}
	if len(c.RegistryCerts) == 0 {
		c.RegistryCerts = []string{"/etc/engined/certs.d", "/etc/docker/certs.d"}
	}
	c.TLS = c.TLS || c.TLSVerify
	for _, path := range []*string{&c.DataRoot, &c.ExecRoot, &c.Pidfile} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("making %s absolute: %w", *path, err)
		}
		*path = absolute
	}
	return errors.Join(c.checkHosts(), c.checkLabels(), c.checkRest())
}

func (c *Config) checkHosts() error {
	for _, host := range c.Hosts {
		if _, err := parseHost(host, c.TLSVerify); err != nil {
			return fmt.Errorf("hosts: %w", err)
		}
	}
	return nil
}

func (c *Config) checkLabels() error {
	for _, label := range c.Labels {
		if key, _, ok := strings.Cut(label, "="); !ok || key == "" {
			return errdefs.InvalidArgument.Errorf("labels: expected KEY=VALUE, got %q", label)
		}
	}
	return nil
}

func (c *Config) checkRest() error {
	if _, err := c.level(); err != nil {
		return err
	}
	if c.LogDriver != "json-file" {
		return errdefs.InvalidArgument.Errorf("log-driver: expected json-file, got %q: no other one is implemented", c.LogDriver)
	}
	if _, err := c.subnet(); err != nil {
		return err
	}
	if err := registry.Check(c.InsecureRegistries, c.RegistryMirrors); err != nil {
		return err
	}
	for key, value := range map[string]int{"max-concurrent-downloads": c.MaxDownloads, "max-concurrent-uploads": c.MaxUploads, "max-download-attempts": c.MaxDownloadAttempts} {
		if value < 1 {
			return errdefs.InvalidArgument.Errorf("%s: expected at least 1, got %d", key, value)
		}
	}
	if c.ShutdownTimeout < 0 {
		return errdefs.InvalidArgument.Errorf("shutdown-timeout: expected seconds, got %d", c.ShutdownTimeout)
	}
	return nil
}

// driverVariable goes before the flag, as in dockerd.
const driverVariable = "DOCKER_DRIVER"

// driver is the storage driver asked for; "" for whichever fits.
func (c *Config) driver() string { return cmp.Or(os.Getenv(driverVariable), c.StorageDriver) }

// level returns the level of the daemon's own log.
func (c *Config) level() (slog.Level, error) {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn,
		"error": slog.LevelError, "fatal": slog.LevelError + 4,
	}
	level, known := levels[c.LogLevel]
	if !known {
		return 0, errdefs.InvalidArgument.Errorf("log-level: expected debug, info, warn, error or fatal, got %q", c.LogLevel)
	}
	if c.Debug {
		level = slog.LevelDebug
	}
	return level, nil
}

// subnet returns the bridge's address and prefix, zero if none is configured.
func (c *Config) subnet() (netip.Prefix, error) {
	if c.BridgeIP == "" {
		return netip.Prefix{}, nil
	}
	prefix, err := netip.ParsePrefix(c.BridgeIP)
	if err != nil || !prefix.Addr().Is4() {
		return prefix, errdefs.InvalidArgument.Errorf("bip: expected an IPv4 address and prefix as 172.18.0.1/16, got %q", c.BridgeIP)
	}
	return prefix, nil
}

// fixed returns the keys that differ between two configurations and that HUP
// does not change.
func (c *Config) fixed(other *Config) (keys []string) {
	old, now := c.settings(), other.settings()
	for i, s := range old {
		if !s.reload && s.key != "" && !reflect.DeepEqual(s.value.String(), now[i].value.String()) {
			keys = append(keys, s.key)
		}
	}
	return keys
}
