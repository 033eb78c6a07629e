package image

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

// instruction changes a configuration as the Dockerfile instruction of its name
// does; rest is what follows the name.
type instruction func(c *dockerspec.DockerOCIImageConfig, rest string) error

// instructions are those that `docker import --change` and commit take.
var instructions = map[string]instruction{
	"CMD":         func(c *dockerspec.DockerOCIImageConfig, rest string) error { c.Cmd = command(c, rest); return nil },
	"ENTRYPOINT":  changeEntrypoint,
	"ENV":         changeEnv,
	"EXPOSE":      changeExpose,
	"HEALTHCHECK": changeHealthcheck,
	"LABEL":       changeLabel,
	"ONBUILD":     changeOnBuild,
	"SHELL":       changeShell,
	"STOPSIGNAL":  func(c *dockerspec.DockerOCIImageConfig, rest string) error { c.StopSignal = rest; return nil },
	"USER":        func(c *dockerspec.DockerOCIImageConfig, rest string) error { c.User = rest; return nil },
	"VOLUME":      changeVolume,
	"WORKDIR":     changeWorkdir,
}

// applyChanges returns what the instructions make, one per element.
func applyChanges(changes []string) (base dockerspec.DockerOCIImageConfig, err error) {
	for _, change := range changes {
		change = strings.TrimSpace(change)
		if change == "" {
			continue
		}
		word, rest, _ := strings.Cut(change, " ")
		apply, known := instructions[strings.ToUpper(word)]
		if !known {
			return base, errdefs.InvalidArgument.Errorf("%s is not a valid change command", strings.ToLower(word))
		}
		rest = strings.TrimSpace(rest)
		if rest == "" {
			return base, errdefs.InvalidArgument.Errorf("%s requires at least one argument", strings.ToUpper(word))
		}
		if err := apply(&base, rest); err != nil {
			return base, errdefs.InvalidArgument.Errorf("change %q: %w", change, err)
		}
	}
	return base, nil
}

// command is a command line in either form: a JSON array is taken word by
// word, anything else goes to the shell.
func command(c *dockerspec.DockerOCIImageConfig, rest string) []string {
	if words, is := jsonWords(rest); is {
		return words
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(append([]string(nil), shell...), rest)
}

func jsonWords(rest string) (words []string, is bool) {
	if !strings.HasPrefix(rest, "[") {
		return nil, false
	}
	return words, json.Unmarshal([]byte(rest), &words) == nil && words != nil
}

func changeEntrypoint(c *dockerspec.DockerOCIImageConfig, rest string) error {
	c.Entrypoint = command(c, rest)
	return nil
}

func changeShell(c *dockerspec.DockerOCIImageConfig, rest string) error {
	words, is := jsonWords(rest)
	if !is || len(words) == 0 {
		return fmt.Errorf("expected a JSON array of words")
	}
	c.Shell = words
	return nil
}

func changeOnBuild(c *dockerspec.DockerOCIImageConfig, rest string) error {
	switch word, _, _ := strings.Cut(strings.ToUpper(rest), " "); word {
	case "ONBUILD", "MAINTAINER", "FROM":
		return fmt.Errorf("%s isn't allowed as an ONBUILD trigger", word)
	}
	c.OnBuild = append(c.OnBuild, rest)
	return nil
}

func changeWorkdir(c *dockerspec.DockerOCIImageConfig, rest string) error {
	if !path.IsAbs(rest) {
		rest = path.Join("/", c.WorkingDir, rest)
	}
	c.WorkingDir = path.Clean(rest)
	return nil
}

func changeVolume(c *dockerspec.DockerOCIImageConfig, rest string) error {
	words, is := jsonWords(rest)
	if !is {
		words = strings.Fields(rest)
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, word := range words {
		if strings.TrimSpace(word) == "" {
			return fmt.Errorf("a volume without a path")
		}
		c.Volumes[word] = struct{}{}
	}
	return nil
}

func changeEnv(c *dockerspec.DockerOCIImageConfig, rest string) error {
	pairs, err := pairsOf(rest)
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

func changeLabel(c *dockerspec.DockerOCIImageConfig, rest string) error {
	pairs, err := pairsOf(rest)
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

// pairsOf reads key=value pairs, or the old form: key, space, all the rest.
func pairsOf(rest string) ([][2]string, error) {
	words, err := splitWords(rest)
	if err != nil {
		return nil, err
	}
	if first := words[0]; !strings.Contains(first, "=") {
		_, value, found := strings.Cut(rest, " ")
		if !found {
			return nil, fmt.Errorf("expected key=value, got %q", first)
		}
		return [][2]string{{first, strings.TrimSpace(value)}}, nil
	}
	var pairs [][2]string
	for _, word := range words {
		key, value, found := strings.Cut(word, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("expected key=value, got %q", word)
		}
		pairs = append(pairs, [2]string{key, value})
	}
	return pairs, nil
}

// splitWords splits at spaces outside of quotes and takes the quotes away.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	escaped, begun := false, false
	for _, r := range text {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' && r != '$' {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, begun = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, begun = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unexpected end of statement while looking for matching %c", quote)
	}
	if begun {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("expected key=value")
	}
	return words, nil
}

// portSpec is [address:][host ports:]container ports[/protocol].
var portSpec = regexp.MustCompile(`^(?:(.+):)?(\d+)(?:-(\d+))?(?:/(\w+))?$`)

// maxPorts bounds a range: every port becomes a key of the configuration.
const maxPorts = 65536

func changeExpose(c *dockerspec.DockerOCIImageConfig, rest string) error {
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for _, word := range strings.Fields(rest) {
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

func changeHealthcheck(c *dockerspec.DockerOCIImageConfig, rest string) error {
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
