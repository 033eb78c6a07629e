package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// openBridge makes the bridge, or takes over the one that is there, and the
// rules of its subnet.
func (s *Service) openBridge(undo *errdefs.Undo) error {
	made, err := ensureBridge(s.options.Bridge, s.options.Subnet)
	if made {
		undo.Add("delete bridge", func(context.Context) error { return removeLink(s.options.Bridge) })
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", s.options.Bridge, err)
	}
	if !s.options.NoForward {
		if err := enableForwarding(); err != nil {
			return err
		}
	}
	if s.options.NoRules {
		return nil
	}
	return applyRules(s.options.Bridge, s.options.Subnet)
}

func (s *Service) closeBridge() error {
	var err error
	if !s.options.NoRules {
		err = dropRules(s.options.Bridge)
	}
	return errors.Join(err, removeLink(s.options.Bridge))
}

// ensureBridge reports whether it made the link, also with an error.
func ensureBridge(name string, subnet netip.Prefix) (made bool, err error) {
	link, err := netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
			return false, err
		}
		made = true
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return made, err
	}
	if link.Type() != "bridge" {
		return made, errdefs.InvalidArgument.Errorf("a link of that name exists and is a %s, expected a bridge", link.Type())
	}
	// AddrReplace: a bridge that was left by an earlier run has it already.
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(subnet)}); err != nil {
		return made, fmt.Errorf("address %s: %w", subnet, err)
	}
	if err := netlink.LinkSetUp(link); err != nil && !errors.Is(err, unix.EEXIST) {
		return made, fmt.Errorf("up: %w", err)
	}
	return made, nil
}

const forwardingFile = "/proc/sys/net/ipv4/ip_forward"

// enableForwarding turns IPv4 forwarding on, as dockerd does.
func enableForwarding() error {
	now, err := os.ReadFile(forwardingFile)
	if err == nil && strings.TrimSpace(string(now)) == "1" {
		return nil
	}
	if err := os.WriteFile(forwardingFile, []byte("1\n"), 0); err != nil {
		return fmt.Errorf("enabling IPv4 forwarding: %w", err)
	}
	return nil
}
