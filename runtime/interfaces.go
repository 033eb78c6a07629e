package runtime

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// Interface holds the counters of one network interface, in the order of
// /proc/net/dev.
type Interface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// interfaces reads the counters in the network namespace of init.
func (c *Container) interfaces() ([]Interface, error) {
	var started Started
	if err := shim.ReadFile(c.processFile(Init, shim.StartedFile), &started); err != nil {
		return nil, errdefs.NotFound.Errorf("container %s has not started: %w", c.record.ID, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", started.Pid))
	if err != nil {
		return nil, fmt.Errorf("reading network counters: %w", err)
	}
	return parseInterfaces(string(text))
}

// parseInterfaces reads /proc/net/dev: two lines of headings, then one line per
// interface with eight fields received and eight sent, proc(5). The loopback
// interface is left out, as Docker does.
func parseInterfaces(text string) (interfaces []Interface, err error) {
	for line := range strings.Lines(text) {
		name, rest, found := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if !found || name == "lo" {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) < 12 {
			return nil, errdefs.DataLoss.Errorf("/proc/net/dev has %d fields for %s, expected 16", len(fields), name)
		}
		one := Interface{Name: name}
		for field, to := range map[int]*uint64{
			0: &one.RxBytes, 1: &one.RxPackets, 2: &one.RxErrors, 3: &one.RxDropped,
			8: &one.TxBytes, 9: &one.TxPackets, 10: &one.TxErrors, 11: &one.TxDropped,
		} {
			if *to, err = strconv.ParseUint(fields[field], 10, 64); err != nil {
				return nil, errdefs.DataLoss.Errorf("/proc/net/dev, %s: %w", name, err)
			}
		}
		interfaces = append(interfaces, one)
	}
	return interfaces, nil
}
