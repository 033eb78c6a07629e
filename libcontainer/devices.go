package libcontainer

import (
	"context"
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/netdevice"
	"github.com/engined/engined/libcontainer/resctrl"
)

// moveDevices brings the host's network devices into the child's network
// namespace, at the child's request. Until the container is there a failure
// takes them back: the kernel would destroy virtual ones with the namespace.
func (l *launch) moveDevices() error {
	namespace, err := unix.Open("/proc/"+strconv.Itoa(l.child.pid)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("linux.netDevices: opening the container's network namespace: %w", err)
	}
	moved, err := netdevice.Move(namespace, l.spec.Linux.NetDevices)
	if err != nil {
		return err
	}
	l.devices = moved
	l.undo.Add("take network devices back", func(context.Context) error { return moved.Back() })
	return nil
}

func checkNetDevices(spec *specs.Spec) error {
	if len(spec.Linux.NetDevices) == 0 {
		return nil
	}
	if !private(spec, specs.NetworkNamespace) {
		return invalid("linux.netDevices", "unable to move network devices without a private network namespace")
	}
	return netdevice.Check(spec.Linux.NetDevices)
}

// makeResctrl finds or makes the container's group of cache and bandwidth.
func (l *launch) makeResctrl() (err error) {
	rdt := l.spec.Linux.IntelRdt
	if rdt == nil {
		return nil
	}
	if l.resctrl, err = resctrl.Make(rdt, l.container.ID); err != nil {
		return err
	}
	group := l.resctrl
	l.undo.Add("remove the resctrl group", func(context.Context) error { return group.Remove() })
	return nil
}

func checkResctrl(spec *specs.Spec) error { return resctrl.Check(spec.Linux.IntelRdt) }

func resctrlLeft(spec *specs.Spec, id string) resctrl.Group {
	if spec.Linux == nil {
		return resctrl.Group{}
	}
	return resctrl.Left(spec.Linux.IntelRdt, id)
}
