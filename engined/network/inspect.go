package network

import (
	"context"
	"net/netip"
	"strconv"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

// find looks a network up by name, id or unique id prefix.
func (s *Service) find(ref string) (record, error) {
	var found []record
	for _, r := range s.records {
		if r.name == ref || r.id == ref {
			return r, nil
		}
		if ref != "" && strings.HasPrefix(r.id, ref) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return record{}, errdefs.NotFound.Coded(errdefs.NoSuchNetwork, ref, "network %s not found", ref)
	}
	return record{}, errdefs.InvalidArgument.Coded(errdefs.AmbiguousPrefix, ref, "network %s is ambiguous (%d matches found on name)", ref, len(found))
}

// List returns all networks.
func (s *Service) List() []apinetwork.Network {
	list := make([]apinetwork.Network, 0, len(s.records))
	for _, r := range s.records {
		list = append(list, s.describe(r))
	}
	return list
}

// Inspect returns one network with the endpoints on it.
func (s *Service) Inspect(ctx context.Context, ref string) (apinetwork.Inspect, error) {
	r, err := s.find(ref)
	if err != nil {
		return apinetwork.Inspect{}, err
	}
	ends, err := s.endpoints(ctx, `WHERE network = ? AND released = 0`, r.id)
	if err != nil {
		return apinetwork.Inspect{}, err
	}
	inspected := apinetwork.Inspect{Network: s.describe(r), Containers: make(map[string]apinetwork.EndpointResource, len(ends))}
	for _, end := range ends {
		inspected.Containers[end.container] = apinetwork.EndpointResource{Name: end.name, EndpointID: end.id,
			MacAddress: apinetwork.HardwareAddr(end.mac), IPv4Address: netip.PrefixFrom(end.address, s.options.Subnet.Bits())}
	}
	return inspected, nil
}

func (s *Service) describe(r record) apinetwork.Network {
	described := apinetwork.Network{Name: r.name, ID: r.id, Created: r.created, Scope: "local", Driver: r.driver,
		EnableIPv4: true, IPAM: apinetwork.IPAM{Driver: "default", Config: []apinetwork.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{}}
	if r.driver == "bridge" {
		described.IPAM.Config = append(described.IPAM.Config, apinetwork.IPAMConfig{Subnet: s.options.Subnet.Masked(), Gateway: s.options.Subnet.Addr()})
		described.Options["com.docker.network.bridge.default_bridge"] = "true"
		described.Options["com.docker.network.bridge.name"] = s.options.Bridge
		described.Options["com.docker.network.bridge.enable_ip_masquerade"] = strconv.FormatBool(!s.options.NoRules)
	}
	return described
}

// Remove refuses: every network there is, is one of the three.
func (s *Service) Remove(ref string) error {
	r, err := s.find(ref)
	if err != nil {
		return err
	}
	return errdefs.PermissionDenied.Errorf("%s is a pre-defined network and cannot be removed", r.name)
}
