package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// openBridge makes the bridge, or uses the one that is there, and the rules of
// its subnet.
func (s *Service) openBridge(undo *errdefs.Undo) error {
	link, made, err := ensureBridge(s.options.Bridge, s.mark())
	if made {
		undo.Add("delete bridge", func(context.Context) error { return removeLink(s.options.Bridge) })
	}
	if err == nil {
		err = s.addressBridge(link)
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

// closeBridge removes the rules, and the bridge if it is this Service's.
func (s *Service) closeBridge() error {
	var err error
	if !s.options.NoRules {
		err = dropRules(s.options.Bridge)
	}
	return errors.Join(err, removeLinkIf(s.options.Bridge, s.owns))
}

// mark is the alias of a bridge that was made for this database's network. The
// link itself says whose it is: a note in the database would outlive the bridge
// and claim the next one of that name. A kill between making and marking leaves
// a bridge that nobody deletes, which is the better mistake.
func (s *Service) mark() string {
	network, err := s.find(apinetwork.NetworkBridge)
	if err != nil { // only without a bridge
		return ""
	}
	return "engined network " + network.id
}

func (s *Service) owns(link netlink.Link) bool {
	alias := link.Attrs().Alias
	return alias != "" && alias == s.mark()
}

// ensureBridge reports whether it made the link, also with an error.
func ensureBridge(name, mark string) (link netlink.Link, made bool, err error) {
	link, err = netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
			return nil, false, err
		}
		made = true
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return nil, made, err
	}
	if link.Type() != "bridge" {
		return nil, made, errdefs.InvalidArgument.Errorf("a link of that name exists and is a %s, expected a bridge", link.Type())
	}
	if made { // the kernel takes no alias with the link's making
		if err := netlink.LinkSetAlias(link, mark); err != nil {
			return nil, made, fmt.Errorf("alias %q: %w", mark, err)
		}
		link.Attrs().Alias = mark
	}
	return link, made, nil
}

// addressBridge settles the subnet and brings the bridge up with its address.
// Without a configured one, the address that somebody gave his own bridge is
// used, as dockerd does.
func (s *Service) addressBridge(link netlink.Link) error {
	there, err := addressesOf(link)
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	if !s.options.Subnet.IsValid() {
		s.options.Subnet = DefaultSubnet
		if len(there) > 0 && !s.owns(link) {
			s.options.Subnet = there[0]
		}
		if err := checkSubnet(s.options.Subnet); err != nil {
			return err
		}
	}
	// One that is there is left as it is: it may be leased for a time.
	if !slices.Contains(there, s.options.Subnet) {
		if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(s.options.Subnet)}); err != nil {
			return fmt.Errorf("address %s: %w", s.options.Subnet, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("up: %w", err)
	}
	return nil
}

// addressesOf returns a link's IPv4 addresses, without link-local ones.
func addressesOf(link netlink.Link) ([]netip.Prefix, error) {
	list, err := netlink.AddrList(link, netlink.FAMILY_V4)
	for errors.Is(err, netlink.ErrDumpInterrupted) { // an address came or went meanwhile
		list, err = netlink.AddrList(link, netlink.FAMILY_V4)
	}
	var found []netip.Prefix
	for _, a := range list {
		address, ok := netip.AddrFromSlice(a.IP.To4())
		if bits, _ := a.Mask.Size(); ok && a.Scope == unix.RT_SCOPE_UNIVERSE {
			found = append(found, netip.PrefixFrom(address, bits))
		}
	}
	return found, err
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
