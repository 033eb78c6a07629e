package api

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/engined/engined/integration/harness"
)

// endpoint is what inspect shows of a container on a network.
type endpoint struct {
	IPAddress, Gateway, MacAddress string
}

func (c *caller) networks(container string) map[string]endpoint {
	c.t.Helper()
	var found struct {
		NetworkSettings struct{ Networks map[string]endpoint }
	}
	c.must("GET", "/containers/"+container+"/json", "", &found)
	return found.NetworkSettings.Networks
}

// freeAddress is one of the bridge's subnet, far from those given by turns.
func (c *caller) freeAddress() string {
	c.t.Helper()
	var bridge struct {
		IPAM struct {
			Config []struct{ Subnet netip.Prefix }
		}
	}
	c.must("GET", "/networks/bridge", "", &bridge)
	address := bridge.IPAM.Config[0].Subnet.Addr().As4()
	address[3] += 50
	return netip.AddrFrom4(address).String()
}

func TestARestartKeepsAFixedAddress(t *testing.T) {
	stack := harness.New(t, harness.Options{Bridge: true})
	c := callerOf(t, stack.Socket)
	address := c.freeAddress()
	c.must("POST", "/containers/create?name=fixed", fmt.Sprintf(`{"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "KILL",
		"HostConfig": {"NetworkMode": "bridge"}, "NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": %q}}}}}`, address), nil)
	c.must("POST", "/containers/fixed/start", "", nil)
	for range 3 {
		c.must("POST", "/containers/fixed/restart", "", nil)
		if got := c.networks("fixed")["bridge"]; got.IPAddress != address {
			t.Errorf("after a restart: %+v, want %s", got, address)
		}
	}
}

func TestTheDefaultNetworkIsTheBridge(t *testing.T) {
	stack := harness.New(t, harness.Options{Bridge: true})
	c := callerOf(t, stack.Socket)
	const mac = "02:42:00:00:00:07"
	address := c.freeAddress()
	c.must("POST", "/containers/create?name=asking", fmt.Sprintf(`{"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "KILL",
		"NetworkingConfig": {"EndpointsConfig": {"default": {"IPAMConfig": {"IPv4Address": %q}, "MacAddress": %q}}}}`, address, mac), nil)
	created := c.networks("asking")
	if _, named := created["bridge"]; !named || len(created) != 1 {
		t.Errorf("created: %+v", created)
	}
	c.must("POST", "/containers/asking/start", "", nil)
	if got := c.networks("asking")["bridge"]; got.IPAddress != address || got.MacAddress != mac {
		t.Errorf("started: %+v, want %s and %s", got, address, mac)
	}
}
