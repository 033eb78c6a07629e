package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/proto/errdefs"
)

var psCommand = command{
	name: "ps", args: "<container-id> [ps options]", min: 1, max: -1,
	usage: "ps displays the processes running inside a container",
	bind: func(f *flags) action {
		format := f.text("format", "f", "table", "select one of: table or json")
		return func(c *call) error {
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			pids, err := container.Processes()
			if err != nil {
				return err
			}
			switch *format {
			case "json":
				return json.NewEncoder(c.stdout).Encode(pids)
			case "table":
				return c.printProcesses(pids)
			}
			return errdefs.InvalidArgument.Errorf("invalid format option")
		}
	},
}

// printProcesses has the host's ps print and keeps the container's lines.
func (c *call) printProcesses(pids []int) error {
	options := c.args[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	output, err := exec.Command("ps", options...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	lines := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errdefs.InvalidArgument.Errorf("couldn't find PID field in ps output")
	}
	fmt.Fprintln(c.stdout, lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return fmt.Errorf("unexpected pid '%s': %w", fields[column], err)
		}
		if slices.Contains(pids, pid) {
			fmt.Fprintln(c.stdout, line)
		}
	}
	return nil
}
