package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

// changing is a configuration while instructions change it.
type changing struct {
	*dockerspec.DockerOCIImageConfig
	hasCmd bool // one of the instructions was CMD
}

// instruction changes a configuration as the Dockerfile instruction of its name
// does; rest is what follows the name.
type instruction struct {
	apply func(c *changing, rest string) error
	bare  bool // the name alone is enough
}

// instructions are those that `docker import --change` and commit take.
var instructions = map[string]instruction{
	"CMD":         {changeCmd, true},
	"ENTRYPOINT":  {changeEntrypoint, true},
	"ENV":         {changeEnv, false},
	"EXPOSE":      {changeExpose, false},
	"HEALTHCHECK": {changeHealthcheck, false},
	"LABEL":       {changeLabel, false},
	"ONBUILD":     {changeOnBuild, false},
	"STOPSIGNAL":  {changeStopSignal, false},
	"USER":        {changeUser, false},
	"VOLUME":      {changeVolume, false},
	"WORKDIR":     {changeWorkdir, false},
}

// applyChanges carries out the instructions on a copy of base. Together they are
// a Dockerfile: with comments, and lines that go on after a backslash.
func applyChanges(base dockerspec.DockerOCIImageConfig, changes []string) (dockerspec.DockerOCIImageConfig, error) {
	c := &changing{DockerOCIImageConfig: cloned(base)}
	lines := logicalLines(strings.Join(changes, "\n"))
	if len(lines) == 0 && len(changes) > 0 {
		return base, errdefs.InvalidArgument.Errorf("changes: file with no instructions")
	}
	for _, line := range lines {
		word, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		is, known := instructions[strings.ToUpper(word)]
		if !known {
			return base, errdefs.InvalidArgument.Errorf("%s is not a valid change command", strings.ToLower(word))
		}
		rest = strings.TrimSpace(rest)
		if rest == "" && !is.bare {
			return base, errdefs.InvalidArgument.Errorf("%s requires at least one argument", strings.ToUpper(word))
		}
		if err := is.apply(c, rest); err != nil {
			return base, errdefs.InvalidArgument.Errorf("change %q: %w", line, err)
		}
	}
	return *c.DockerOCIImageConfig, nil
}

// cloned is a copy of which everything may be changed.
func cloned(base dockerspec.DockerOCIImageConfig) *dockerspec.DockerOCIImageConfig {
	base.Env, base.OnBuild = slices.Clone(base.Env), slices.Clone(base.OnBuild)
	base.Labels, base.Volumes, base.ExposedPorts = maps.Clone(base.Labels), maps.Clone(base.Volumes), maps.Clone(base.ExposedPorts)
	return &base
}

// logicalLines are a Dockerfile's lines without comments and empty ones, those
// put together that a backslash continues.
func logicalLines(text string) (lines []string) {
	begun := ""
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		if trimmed := strings.TrimLeft(line, " \t"); trimmed == "" || trimmed[0] == '#' {
			continue
		} else if begun == "" {
			line = trimmed
		}
		if more, continued := strings.CutSuffix(line, "\\"); continued {
			begun += more
			continue
		}
		lines, begun = append(lines, begun+line), ""
	}
	if begun != "" {
		lines = append(lines, begun)
	}
	return lines
}

// command is a command line in either form: a JSON array is taken word by
// word, anything else goes to the shell.
func command(c *changing, rest string) []string {
	if words, is := jsonWords(rest); is {
		return words
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	if rest == "" {
		return slices.Clone(shell)
	}
	return append(slices.Clone(shell), rest)
}

func jsonWords(rest string) (words []string, is bool) {
	if !strings.HasPrefix(rest, "[") {
		return nil, false
	}
	return words, json.Unmarshal([]byte(rest), &words) == nil && words != nil
}

func changeCmd(c *changing, rest string) error {
	c.Cmd, c.hasCmd = command(c, rest), true
	return nil
}

// changeEntrypoint drops a command of before, which was another program's.
func changeEntrypoint(c *changing, rest string) error {
	c.Entrypoint = nil
	if rest != "" {
		c.Entrypoint = command(c, rest)
	}
	if !c.hasCmd {
		c.Cmd = nil
	}
	return nil
}

func changeUser(c *changing, rest string) (err error) {
	c.User, err = expand(rest, c.Env)
	return err
}

func changeStopSignal(c *changing, rest string) (err error) {
	c.StopSignal, err = expand(rest, c.Env)
	return err
}

func changeOnBuild(c *changing, rest string) error {
	switch word, _, _ := strings.Cut(strings.ToUpper(rest), " "); word {
	case "ONBUILD", "MAINTAINER", "FROM":
		return fmt.Errorf("%s isn't allowed as an ONBUILD trigger", word)
	}
	c.OnBuild = append(c.OnBuild, rest)
	return nil
}

func changeWorkdir(c *changing, rest string) error {
	rest, err := expand(rest, c.Env)
	if err != nil {
		return err
	}
	if !path.IsAbs(rest) {
		rest = path.Join("/", c.WorkingDir, rest)
	}
	c.WorkingDir = path.Clean(rest)
	return nil
}

func changeVolume(c *changing, rest string) error {
	words, is := jsonWords(rest)
	if !is {
		words = strings.Fields(rest)
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, word := range words {
		word, err := expand(word, c.Env)
		if err != nil {
			return err
		}
		if word = strings.TrimSpace(word); word == "" {
			return fmt.Errorf("VOLUME specified can not be an empty string")
		}
		c.Volumes[word] = struct{}{}
	}
	return nil
}

func changeEnv(c *changing, rest string) error {
	pairs, err := pairsOf("ENV", rest, c.Env)
	if err != nil {
		return err
	}
	for _, pair := range pairs {
		c.Env = setEnv(c.Env, pair[0], pair[1])
	}
	return nil
}

func setEnv(env []string, key, value string) []string {
	for i, have := range env {
		if strings.HasPrefix(have, key+"=") {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

func changeLabel(c *changing, rest string) error {
	pairs, err := pairsOf("LABEL", rest, c.Env)
	if err != nil {
		return err
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	for _, pair := range pairs {
		c.Labels[pair[0]] = pair[1]
	}
	return nil
}

// portSpec is [address:][host ports:]container ports[/protocol].
var portSpec = regexp.MustCompile(`^(?:(.+):)?(\d+)(?:-(\d+))?(?:/(\w+))?$`)

// maxPorts bounds a range: every port becomes a key of the configuration.
const maxPorts = 65536

func changeExpose(c *changing, rest string) error {
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	words, err := expand(rest, c.Env)
	if err != nil {
		return err
	}
	for _, word := range strings.Fields(words) {
		first, last, protocol, err := parsePorts(word)
		if err != nil {
			return err
		}
		for port := first; port <= last; port++ {
			c.ExposedPorts[strconv.Itoa(port)+"/"+protocol] = struct{}{}
		}
	}
	return nil
}

func parsePorts(word string) (first, last int, protocol string, err error) {
	parts := portSpec.FindStringSubmatch(word)
	if parts == nil {
		return 0, 0, "", fmt.Errorf("invalid containerPort: %s", word)
	}
	if host := parts[1]; host != "" && !hostPart(host) {
		return 0, 0, "", fmt.Errorf("invalid host part %q of %s", host, word)
	}
	first, _ = strconv.Atoi(parts[2]) // digits; too many of them fail the range below
	last = first
	if parts[3] != "" {
		last, _ = strconv.Atoi(parts[3])
	}
	if first < 1 || last < first || last >= maxPorts || len(parts[2]) > 5 {
		return 0, 0, "", fmt.Errorf("invalid containerPort: %s: expected 1 to 65535", word)
	}
	protocol = strings.ToLower(parts[4])
	switch protocol {
	case "":
		protocol = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return 0, 0, "", fmt.Errorf("invalid proto: %s", protocol)
	}
	return first, last, protocol, nil
}

// hostPart accepts what may stand before a container port; it has no meaning
// in an image.
func hostPart(host string) bool {
	if at := strings.LastIndex(host, ":"); at >= 0 {
		address := strings.Trim(host[:at], "[]")
		if _, err := netip.ParseAddr(address); err != nil {
			return false
		}
		host = host[at+1:]
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	for _, part := range strings.SplitN(host, "-", 2) {
		if n, err := strconv.Atoi(part); err != nil || n < 0 || n >= maxPorts {
			return false
		}
	}
	return true
}

func changeHealthcheck(c *changing, rest string) error {
	check := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(rest, "--") {
		option, more, _ := strings.Cut(rest, " ")
		if err := healthOption(check, option); err != nil {
			return err
		}
		rest = strings.TrimSpace(more)
	}
	word, line, _ := strings.Cut(rest, " ")
	line = strings.TrimSpace(line)
	switch strings.ToUpper(word) {
	case "NONE":
		check.Test = []string{"NONE"}
	case "CMD":
		words, is := jsonWords(line)
		switch {
		case line == "" || is && len(words) == 0:
			return fmt.Errorf("missing command after HEALTHCHECK CMD")
		case is:
			check.Test = append([]string{"CMD"}, words...)
		default:
			check.Test = []string{"CMD-SHELL", line}
		}
	default:
		return fmt.Errorf("unknown type %q in HEALTHCHECK (try CMD)", word)
	}
	c.Healthcheck = check
	return nil
}

func healthOption(check *dockerspec.HealthcheckConfig, option string) error {
	key, value, _ := strings.Cut(strings.TrimPrefix(option, "--"), "=")
	if key == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fmt.Errorf("--retries cannot be %q: expected a number", value)
		}
		check.Retries = n
		return nil
	}
	field, known := map[string]*time.Duration{"interval": &check.Interval, "timeout": &check.Timeout,
		"start-period": &check.StartPeriod, "start-interval": &check.StartInterval}[key]
	if !known {
		return fmt.Errorf("unknown flag: %s", key)
	}
	duration, err := time.ParseDuration(value)
	if err != nil || (duration != 0 && duration < time.Millisecond) {
		return fmt.Errorf("interval %q cannot be less than 1ms", key)
	}
	*field = duration
	return nil
}
