package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

const (
	hostHosts  = "/etc/hosts"
	hostResolv = "/etc/resolv.conf"
)

// loopbackHosts opens every container's /etc/hosts that is not the host's.
const loopbackHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// hosts renders /etc/hosts: the host's own in its network namespace, else the
// loopback names and the container's; then the extra ones.
func hosts(req Request, own netip.Addr, host bool, gateway netip.Addr) ([]byte, error) {
	content := []byte(loopbackHosts)
	if host {
		var err error
		if content, err = readIfThere(hostHosts); err != nil {
			return nil, err
		}
	}
	text := bytes.NewBuffer(content)
	if own.IsValid() {
		names := req.Hostname
		if req.Domainname != "" {
			names = req.Hostname + "." + req.Domainname + " " + req.Hostname
		}
		fmt.Fprintf(text, "%s\t%s\n", own, names)
	}
	for _, extra := range req.ExtraHosts {
		name, addr, err := extraHost(extra, gateway)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(text, "%s\t%s\n", addr, name)
	}
	return text.Bytes(), nil
}

// extraHost parses NAME:ADDRESS; host-gateway stands for the bridge's address.
func extraHost(text string, gateway netip.Addr) (name string, addr netip.Addr, err error) {
	name, value, found := strings.Cut(text, ":")
	if strings.Contains(name, "=") {
		name, value, found = strings.Cut(text, "=")
	}
	if found && name != "" && !strings.ContainsAny(name, " \t\n") {
		if value == "host-gateway" {
			return name, gateway, nil
		}
		addr, err = netip.ParseAddr(strings.Trim(value, "[]"))
		if err == nil {
			return name, addr, nil
		}
	}
	return "", netip.Addr{}, errdefs.InvalidArgument.Errorf("HostConfig.ExtraHosts: %q: expected NAME:ADDRESS", text)
}

// resolvConf renders /etc/resolv.conf from the host's, with what the request
// sets instead of the host's. A name server on the host's loopback cannot be
// reached from another namespace and is left out there.
func resolvConf(req Request, host bool) ([]byte, error) {
	content, err := readIfThere(hostResolv)
	if err != nil {
		return nil, err
	}
	return editResolv(content, req, host), nil
}

func editResolv(content []byte, req Request, host bool) []byte {
	var kept []string
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimRight(line, "\n"); keepResolvLine(line, req, host) {
			kept = append(kept, line)
		}
	}
	for _, server := range req.DNS {
		kept = append(kept, "nameserver "+server.String())
	}
	if len(req.DNSSearch) > 0 && !(len(req.DNSSearch) == 1 && req.DNSSearch[0] == ".") {
		kept = append(kept, "search "+strings.Join(req.DNSSearch, " "))
	}
	if len(req.DNSOptions) > 0 {
		kept = append(kept, "options "+strings.Join(req.DNSOptions, " "))
	}
	if len(kept) == 0 {
		return nil
	}
	return []byte(strings.Join(kept, "\n") + "\n")
}

func keepResolvLine(line string, req Request, host bool) bool {
	fields := strings.Fields(line)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
		return false
	}
	switch fields[0] {
	case "nameserver":
		if len(req.DNS) > 0 || len(fields) < 2 {
			return false
		}
		server, err := netip.ParseAddr(fields[1])
		return err == nil && (host || !server.IsLoopback())
	case "search", "domain":
		return len(req.DNSSearch) == 0
	case "options":
		return len(req.DNSOptions) == 0
	}
	return true
}

// readIfThere reads a file of the host; one that does not exist is empty.
func readIfThere(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return content, err
}
