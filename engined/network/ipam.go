package network

import (
	"encoding/binary"
	"net"
	"net/netip"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

// nextAddress chooses an address of subnet for a new endpoint: the first free
// one after last, wrapping round, so that an address rests as long as possible
// before it names another container. The subnet's own, its network and its
// broadcast address are never given.
func nextAddress(subnet netip.Prefix, last netip.Addr, taken map[netip.Addr]bool) (netip.Addr, error) {
	first, broadcast := bounds(subnet)
	size := broadcast - first // candidates first .. broadcast-1
	offset := uint32(0)
	if last.Is4() && subnet.Contains(last) {
		offset = number(last) + 1 - first
	}
	for i := range size {
		candidate := address(first + (offset+i)%size)
		if candidate != subnet.Addr() && !taken[candidate] {
			return candidate, nil
		}
	}
	return netip.Addr{}, errdefs.ResourceExhausted.Errorf("no available IPv4 addresses on this network's address pools: %s", subnet.Masked())
}

// askedAddress checks an address that the caller chose.
func askedAddress(subnet netip.Prefix, asked netip.Addr, taken map[netip.Addr]bool) error {
	first, broadcast := bounds(subnet)
	if !asked.Is4() || number(asked) < first || number(asked) >= broadcast || asked == subnet.Addr() {
		return errdefs.InvalidArgument.Errorf("IPAMConfig.IPv4Address: %s: expected a free host address in %s", asked, subnet.Masked())
	}
	if taken[asked] {
		return errdefs.PermissionDenied.Errorf("Address already in use: %s", asked)
	}
	return nil
}

// bounds returns the first host address of subnet and its broadcast address.
func bounds(subnet netip.Prefix) (first, broadcast uint32) {
	base := number(subnet.Masked().Addr())
	return base + 1, base | (1<<(32-subnet.Bits()) - 1)
}

func number(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// macOf derives a locally administered MAC address from an IPv4 address, so
// that neighbours' ARP entries stay true when the address moves on.
func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

// choose settles address and MAC for what the caller asked for (nil: nothing).
func choose(subnet netip.Prefix, asked *apinetwork.EndpointSettings, last netip.Addr, taken map[netip.Addr]bool) (netip.Addr, net.HardwareAddr, error) {
	addr := askedFor(asked)
	var err error
	if addr.IsValid() {
		err = askedAddress(subnet, addr, taken)
	} else {
		addr, err = nextAddress(subnet, last, taken)
	}
	if err != nil {
		return netip.Addr{}, nil, err
	}
	if asked != nil && len(asked.MacAddress) > 0 {
		return addr, net.HardwareAddr(asked.MacAddress), nil
	}
	return addr, macOf(addr), nil
}

// askedFor returns the IPv4 address that the caller chose, else the zero one.
func askedFor(asked *apinetwork.EndpointSettings) netip.Addr {
	if asked == nil || asked.IPAMConfig == nil {
		return netip.Addr{}
	}
	return asked.IPAMConfig.IPv4Address
}
