package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// containerLink is the name of the link inside the container.
const containerLink = "eth0"

// connect makes the veth pair of end, its host's end on the bridge, its other
// end in the namespace at path, configured and up.
func (s *Service) connect(end endpoint, path string) error {
	namespace, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer namespace.Close()
	if err := s.makePair(end, namespace); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in %s: %w", path, err)
	}
	defer inside.Close()
	return s.configure(inside, end.address)
}

func (s *Service) makePair(end endpoint, namespace netns.NsHandle) error {
	bridge, err := netlink.LinkByName(s.options.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", s.options.Bridge, err)
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = end.link
	attributes.MasterIndex = bridge.Attrs().Index
	attributes.MTU = bridge.Attrs().MTU
	attributes.Flags = net.FlagUp
	pair := &netlink.Veth{
		LinkAttrs:        attributes,
		PeerName:         containerLink,
		PeerHardwareAddr: end.mac,
		PeerNamespace:    netlink.NsFd(int(namespace)),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("veth pair %s: %w", end.link, err)
	}
	return nil
}

// configure brings lo and eth0 up and sets address and default route.
func (s *Service) configure(inside *netlink.Handle, own netip.Addr) error {
	loopback, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := inside.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	link, err := inside.LinkByName(containerLink)
	if err != nil {
		return fmt.Errorf("%s: %w", containerLink, err)
	}
	if err := inside.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(own, s.options.Subnet.Bits()))}); err != nil {
		return fmt.Errorf("address %s: %w", own, err)
	}
	if err := inside.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s up: %w", containerLink, err)
	}
	gateway := s.options.Subnet.Addr()
	if err := inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("default route by %s: %w", gateway, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// removeLink deletes a link; the kernel makes the caller wait. Absent is fine.
func removeLink(name string) error {
	return removeLinkIf(name, func(netlink.Link) bool { return true })
}

// removeLinkIf is removeLink for a link that may be somebody else's.
func removeLinkIf(name string, ours func(netlink.Link) bool) error {
	link, err := netlink.LinkByName(name)
	if err == nil && !ours(link) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) || errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting link %s: %w", name, err)
	}
	return nil
}
