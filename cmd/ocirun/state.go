package main

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer"
)

var stateCommand = command{
	name: "state", args: "<container-id>", min: 1, max: 1,
	usage:       "output the state of a container",
	description: "The state command outputs current state information for the\ninstance of a container.",
	bind: func(*flags) action {
		return func(c *call) error {
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			shown, err := view(container)
			if err != nil {
				return err
			}
			encoded, err := json.MarshalIndent(shown, "", "  ")
			if err != nil {
				return err
			}
			_, err = c.stdout.Write(encoded)
			return err
		}
	},
}

// containerState is a container as `state` and `list` print it, runc's fields
// in runc's order.
type containerState struct {
	Version     string              `json:"ociVersion"`
	ID          string              `json:"id"`
	Pid         int                 `json:"pid"`
	Status      libcontainer.Status `json:"status"`
	Bundle      string              `json:"bundle"`
	Rootfs      string              `json:"rootfs"`
	Created     time.Time           `json:"created"`
	Annotations map[string]string   `json:"annotations,omitempty"`
	Owner       string              `json:"owner"`
}

// view reads what the kernel knows of the container. A stopped one has pid 0.
func view(container *libcontainer.Container) (containerState, error) {
	status, err := container.Status()
	if err != nil {
		return containerState{}, err
	}
	s := &container.State
	shown := containerState{
		Version: specs.Version, ID: s.ID, Pid: s.Pid, Status: status, Bundle: s.Bundle,
		Rootfs: s.Rootfs, Created: s.Created, Annotations: s.Annotations,
	}
	if status == libcontainer.Stopped {
		shown.Pid = 0
	}
	return shown, nil
}
