package engined

import (
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// load reads args with a configuration file of that content ("": none).
func load(t *testing.T, content string, args ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if content != "" {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config-file", path}, args...)
	}
	return Load(args, io.Discard)
}

func TestFlagsAndFileMakeOneConfiguration(t *testing.T) {
	c, err := load(t, `{"debug":true,"labels":["a=b"],"log-opts":{"max-size":"1m"},"shutdown-timeout":3,"iptables":false,"hosts":["unix:///tmp/x.sock"]}`,
		"--data-root", "relative", "-p", "/p", "--bridge=none", "--bip", "10.1.0.1/16", "--storage-opt", "x", "--storage-opt", "y")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Debug || c.Labels[0] != "a=b" || c.LogOptions["max-size"] != "1m" || c.ShutdownTimeout != 3 || c.IPTables || !c.IPForward || c.Hosts[0] != "unix:///tmp/x.sock" {
		t.Errorf("from the file: %+v", c)
	}
	if !filepath.IsAbs(c.DataRoot) || c.Pidfile != "/p" || c.Bridge != "none" || len(c.StorageOptions) != 2 || c.ExecRoot != DefaultExecRoot {
		t.Errorf("from flags: %+v", c)
	}
	if level, _ := c.level(); level != slog.LevelDebug {
		t.Errorf("level %v", level)
	}
	if subnet, _ := c.subnet(); subnet.String() != "10.1.0.1/16" {
		t.Errorf("subnet %v", subnet)
	}
}

func TestWrongConfigurationsNameWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		file, args, want string
	}{
		{`{"debug":true}`, "-D", "specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)"},
		{`{"hosts":["unix:///a"]}`, "-H unix:///b", "hosts: (from flag: [unix:///b]"},
		{`{"bogus":1,"also":2}`, "", "don't match any configuration option: also, bogus"},
		{`{"debug":"yes"}`, "", `debug: expected true or false, got "yes"`},
		{`{"labels":"a=b"}`, "", "labels: expected an array of strings"},
		{`{"log-opts":{"a":1}}`, "", "log-opts: expected an object of strings"},
		{`[]`, "", "expected a JSON object"},
		{`{`, "", "expected a JSON object"},
		{"", "--config-file /nonexistent/x.json", "/nonexistent/x.json"},
		{"", "--bogus", "bogus"},
		{"", "serve", `unexpected argument "serve"`},
		{"", "--label a", "labels: expected KEY=VALUE"},
		{"", "--log-opt a", "expected KEY=VALUE"},
		{"", "-l loud", "log-level: expected debug"},
		{"", "--log-driver syslog", "log-driver: expected json-file"},
		{"", "--bip ::1/64", "bip: expected an IPv4"},
		{"", "-H /run/x", "expected unix://PATH"},
		{"", "-H unix://relative", "absolute path"},
		{"", "-H tcp://0.0.0.0:2375", "root on this machine"},
		{"", "-H tcp://:2375", "root on this machine"},
		{"", "-H tcp://example.org:2375", "root on this machine"},
		{"", "--tls -H tcp://0.0.0.0:2376", "root on this machine: configure tlsverify"},
		{`{"tls":true}`, "-H tcp://example.org:2376", "root on this machine: configure tlsverify"},
		{"", "-H tcp://127.0.0.1:no", "port number"},
		{"", "-H http://x", "expected unix://"},
		{"", "--shutdown-timeout -1", "shutdown-timeout"},
	} {
		_, err := load(t, test.file, strings.Fields(test.args)...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %q", test.file, test.args, err, test.want)
		}
	}
}

func TestLoopbackAndVerifiedClientsMayListenOnTCP(t *testing.T) {
	for _, args := range []string{"-H tcp://127.0.0.1:1", "-H tcp://[::1]:1", "-H tcp://localhost:1", "--tls -H tcp://127.0.0.1:1", "--tlsverify -H tcp://0.0.0.0:1"} {
		c, err := load(t, "", strings.Fields(args)...)
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
		if strings.Contains(args, "tlsverify") && !c.TLS {
			t.Error("tlsverify does not switch TLS on")
		}
	}
}

func TestHelpIsNoFailureAndListsEveryFlag(t *testing.T) {
	var usage strings.Builder
	_, err := Load([]string{"--help"}, &usage)
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v", err)
	}
	c := defaults()
	for _, s := range c.settings() {
		if !strings.Contains(usage.String(), "-"+s.flag) {
			t.Errorf("no --%s in the usage", s.flag)
		}
	}
}

func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	a, _ := load(t, "", "--data-root", "/a", "-D")
	b, _ := load(t, "", "--data-root", "/b", "--label", "x=y")
	if got := strings.Join(a.fixed(&b), " "); got != "data-root" {
		t.Errorf("got %q", got)
	}
}
