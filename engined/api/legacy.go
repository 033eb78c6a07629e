package api

import (
	"net/netip"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
	apisystem "github.com/moby/moby/api/types/system"
)

// What follows are the rules for encoding answers of the newest types for old
// versions: fields that moby/api dropped and old clients read. Each names the
// version that dropped them.

// legacyEvent has the fields of before 1.22, which were sent until 1.52.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	apievents.Message
}

// event returns an event as version v writes it.
func (v Version) event(message apievents.Message) any {
	if !v.Before(52) {
		return message
	}
	legacy := legacyEvent{Message: message}
	switch message.Type {
	case apievents.ContainerEventType:
		legacy.From = message.Actor.Attributes["image"]
		fallthrough
	case apievents.ImageEventType:
		legacy.Status, legacy.ID = string(message.Action), message.Actor.ID
	}
	return legacy
}

// legacyInspect is InspectResponse with the fields of before 1.52. An embedded
// field gives way to one of the same name outside.
type legacyInspect struct {
	apicontainer.InspectResponse
	Config          *legacyConfig
	HostConfig      *legacyHostConfig
	NetworkSettings *legacyNetworkSettings
}

type legacyConfig struct {
	*apicontainer.Config
	MacAddress string `json:",omitempty"`
	OnBuild    []string
}

type legacyHostConfig struct {
	*apicontainer.HostConfig
	KernelMemory    *int64 `json:",omitempty"` // until 1.42
	KernelMemoryTCP *int64 `json:",omitempty"` // until 1.42
}

type legacyNetworkSettings struct {
	*apicontainer.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string

	// Of the endpoint on the default bridge.
	EndpointID          string
	Gateway             netip.Addr
	GlobalIPv6Address   netip.Addr
	GlobalIPv6PrefixLen int
	IPAddress           netip.Addr
	IPPrefixLen         int
	IPv6Gateway         netip.Addr
	MacAddress          apinetwork.HardwareAddr
}

// inspect returns a container as version v writes it.
func (v Version) inspect(c apicontainer.InspectResponse) any {
	if !v.Before(52) {
		return c
	}
	legacy := legacyInspect{InspectResponse: c}
	if c.Config != nil {
		legacy.Config = &legacyConfig{Config: c.Config, OnBuild: c.Config.OnBuild}
	}
	if c.HostConfig != nil {
		legacy.HostConfig = v.hostConfig(c.HostConfig)
	}
	if c.NetworkSettings != nil {
		legacy.NetworkSettings = v.networkSettings(c)
		if legacy.Config != nil {
			legacy.Config.MacAddress = configuredMac(c)
		}
	}
	return legacy
}

func (v Version) hostConfig(c *apicontainer.HostConfig) *legacyHostConfig {
	legacy := &legacyHostConfig{HostConfig: c}
	if v.Before(42) {
		legacy.KernelMemory, legacy.KernelMemoryTCP = new(int64), new(int64)
	}
	return legacy
}

func (v Version) networkSettings(c apicontainer.InspectResponse) *legacyNetworkSettings {
	settings := *c.NetworkSettings
	if v.Before(45) {
		settings.Networks = withShortID(c)
	}
	legacy := &legacyNetworkSettings{NetworkSettings: &settings}
	if endpoint := settings.Networks[apinetwork.NetworkBridge]; endpoint != nil {
		legacy.EndpointID = endpoint.EndpointID
		legacy.Gateway = endpoint.Gateway
		legacy.GlobalIPv6Address = endpoint.GlobalIPv6Address
		legacy.GlobalIPv6PrefixLen = endpoint.GlobalIPv6PrefixLen
		legacy.IPAddress = endpoint.IPAddress
		legacy.IPPrefixLen = endpoint.IPPrefixLen
		legacy.IPv6Gateway = endpoint.IPv6Gateway
		legacy.MacAddress = endpoint.MacAddress
	}
	return legacy
}

// withShortID returns a container's endpoints with its short id among the
// aliases on user-defined networks, as it was until 1.45.
func withShortID(c apicontainer.InspectResponse) map[string]*apinetwork.EndpointSettings {
	adapted := make(map[string]*apinetwork.EndpointSettings, len(c.NetworkSettings.Networks))
	for name, endpoint := range c.NetworkSettings.Networks {
		if endpoint != nil && apicontainer.NetworkMode(name).IsUserDefined() && len(c.ID) > 12 {
			endpoint = endpoint.Copy()
			endpoint.Aliases = append(endpoint.Aliases, c.ID[:12])
		}
		adapted[name] = endpoint
	}
	return adapted
}

// configuredMac returns the MAC address of the network the container was
// created on, where Config had it until 1.52.
func configuredMac(c apicontainer.InspectResponse) string {
	if c.HostConfig == nil {
		return ""
	}
	name := string(c.HostConfig.NetworkMode)
	if c.HostConfig.NetworkMode.IsDefault() {
		name = apinetwork.NetworkBridge
	}
	if endpoint := c.NetworkSettings.Networks[name]; endpoint != nil {
		return endpoint.MacAddress.String()
	}
	return ""
}

// list returns a list of containers as version v writes it.
func (v Version) list(all []apicontainer.Summary) []apicontainer.Summary {
	if all == nil {
		all = []apicontainer.Summary{} // [] and not null
	}
	for i := range all {
		if v.Before(46) {
			all[i].HostConfig.Annotations = nil
		}
		if v.Before(48) {
			all[i].ImageManifestDescriptor = nil
		}
		if v.Before(52) {
			all[i].Health = nil
		}
	}
	return all
}

// legacyInfo is Info with the fields of before 1.52.
type legacyInfo struct {
	apisystem.Info
	KernelMemory      *bool        `json:",omitempty"` // until 1.42
	KernelMemoryTCP   bool         // until 1.52
	BridgeNfIptables  bool         `json:"BridgeNfIptables"`  // until 1.50
	BridgeNfIP6tables bool         `json:"BridgeNfIp6tables"` // until 1.50
	ContainerdCommit  legacyCommit // Expected until 1.49
	RuncCommit        legacyCommit
	InitCommit        legacyCommit
	ClusterStore      string `json:",omitempty"`
	ClusterAdvertise  string `json:",omitempty"`
}

type legacyCommit struct {
	ID       string
	Expected string
}

// info returns Info as version v writes it.
func (v Version) info(info apisystem.Info) any {
	if !v.Before(52) {
		return info
	}
	legacy := legacyInfo{
		Info:             info,
		ContainerdCommit: legacyCommit{info.ContainerdCommit.ID, info.ContainerdCommit.ID},
		RuncCommit:       legacyCommit{info.RuncCommit.ID, info.RuncCommit.ID},
		InitCommit:       legacyCommit{info.InitCommit.ID, info.InitCommit.ID},
	}
	if v.Before(42) {
		legacy.KernelMemory = new(bool)
	}
	return legacy
}
