package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	apimount "github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

// Version is a version of the API.
type Version struct{ Major, Minor int }

// The versions served. The newest is the one whose types moby/api holds.
var (
	Oldest = Version{1, 24}
	Newest = Version{1, 56}
)

// String returns the version as 1.24.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Before says whether v is older than 1.minor.
func (v Version) Before(minor int) bool { return v.compare(Version{1, minor}) < 0 }

func (v Version) compare(other Version) int {
	return cmp.Or(cmp.Compare(v.Major, other.Major), cmp.Compare(v.Minor, other.Minor))
}

// parseVersion reads a path's first element, as v1.24; ok is false if it is
// not a version at all.
func parseVersion(element string) (v Version, ok bool) {
	numbers, isVersion := strings.CutPrefix(element, "v")
	major, minor, dotted := strings.Cut(numbers, ".")
	if !isVersion || !dotted || len(major) > 4 || len(minor) > 4 {
		return v, false
	}
	first, err := strconv.ParseUint(major, 10, 16)
	if err != nil {
		return v, false
	}
	second, err := strconv.ParseUint(minor, 10, 16)
	if err != nil {
		return v, false
	}
	return Version{int(first), int(second)}, true
}

// check refuses a version outside the limits, in dockerd's words.
func (v Version) check() error {
	if v.compare(Oldest) < 0 {
		return errdefs.InvalidArgument.Errorf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, Oldest)
	}
	if v.compare(Newest) > 0 {
		return errdefs.InvalidArgument.Errorf("client version %s is too new. Maximum supported API version is %s", v, Newest)
	}
	return nil
}

type versionKey struct{}

// versionOf returns the API version of a request; unversioned is the newest.
func versionOf(r *http.Request) Version {
	if v, ok := r.Context().Value(versionKey{}).(Version); ok {
		return v
	}
	return Newest
}

// cutVersion takes the version off a request's path, which is cleaned, and
// returns the request that the routes match. A ServeMux has no pattern for
// "an optional version".
func cutVersion(r *http.Request) (*http.Request, Version) {
	v, escaped := Newest, path.Clean("/"+r.URL.EscapedPath())
	first, rest, more := strings.Cut(escaped[1:], "/")
	if parsed, ok := parseVersion(first); ok && more {
		v, escaped = parsed, "/"+rest
	}
	cut := r.WithContext(context.WithValue(r.Context(), versionKey{}, v))
	url := *r.URL
	if plain, err := unescapePath(escaped); err == nil {
		url.Path, url.RawPath = plain, escaped
	}
	cut.URL = &url
	return cut, v
}

// What follows are the rules for decoding requests of old versions into the
// types of the newest. Each names the version that changed the meaning.

// legacyCreate are fields of POST /containers/create that moby/api dropped.
type legacyCreate struct {
	MacAddress string // of the container, until 1.52; since 1.44 endpoints have it
}

// adaptCreate changes a create request of version v to mean in the newest
// version what its sender meant.
func (v Version) adaptCreate(request *apicontainer.CreateRequest, legacy legacyCreate) error {
	if request.HostConfig == nil {
		request.HostConfig = &apicontainer.HostConfig{}
	}
	host := request.HostConfig
	v.adaptDefaults(host)
	v.forgetUnknown(request)
	if err := v.checkMounts(host.Mounts); err != nil {
		return err
	}
	if v.Before(44) && request.NetworkingConfig != nil && len(request.NetworkingConfig.EndpointsConfig) > 1 {
		return errdefs.InvalidArgument.Errorf("Container cannot be connected to network endpoints: more than one network at create needs API version 1.44")
	}
	if v.Before(52) && legacy.MacAddress != "" {
		return moveMacAddress(request, legacy.MacAddress)
	}
	return nil
}

// adaptDefaults sets what an old client leaves out and expects to be as it
// was then. Absent on purpose: until 1.40 IPC namespaces were shareable unless
// said otherwise, which is not implemented and which such a client did not ask
// for; it gets a private one.
func (v Version) adaptDefaults(host *apicontainer.HostConfig) {
	if v.Before(41) && host.CgroupnsMode.IsEmpty() {
		host.CgroupnsMode = apicontainer.CgroupnsModeHost
	}
}

// forgetUnknown clears what version v did not have: old daemons ignored it.
func (v Version) forgetUnknown(request *apicontainer.CreateRequest) {
	host := request.HostConfig
	if v.Before(25) {
		host.AutoRemove = false // the client removes it, and would find it gone
	}
	if v.Before(42) {
		host.ConsoleSize = [2]uint{}
	}
	if v.Before(43) {
		host.Annotations = nil
	}
	if v.Before(44) && request.Config != nil && request.Config.Healthcheck != nil {
		request.Config.Healthcheck.StartInterval = 0
	}
	for i := range host.Mounts {
		v.forgetUnknownMount(&host.Mounts[i])
	}
}

func (v Version) forgetUnknownMount(m *apimount.Mount) {
	if m.BindOptions != nil {
		if v.Before(40) {
			m.BindOptions.NonRecursive = false
		}
		if v.Before(44) {
			m.BindOptions.ReadOnlyNonRecursive, m.BindOptions.ReadOnlyForceRecursive = false, false
		}
	}
	if v.Before(45) && m.VolumeOptions != nil {
		m.VolumeOptions.Subpath = ""
	}
	if v.Before(46) && m.TmpfsOptions != nil {
		m.TmpfsOptions.Options = nil
	}
}

// checkMounts refuses options of another mount type, as dockerd does since 1.42.
func (v Version) checkMounts(mounts []apimount.Mount) error {
	if v.Before(42) {
		return nil
	}
	for i, m := range mounts {
		switch {
		case m.BindOptions != nil && m.Type != apimount.TypeBind:
			return errdefs.InvalidArgument.Errorf("BindOptions must not be specified on mount type %q (HostConfig.Mounts[%d])", m.Type, i)
		case m.VolumeOptions != nil && m.Type != apimount.TypeVolume:
			return errdefs.InvalidArgument.Errorf("VolumeOptions must not be specified on mount type %q (HostConfig.Mounts[%d])", m.Type, i)
		case m.TmpfsOptions != nil && m.Type != apimount.TypeTmpfs:
			return errdefs.InvalidArgument.Errorf("TmpfsOptions must not be specified on mount type %q (HostConfig.Mounts[%d])", m.Type, i)
		}
	}
	return nil
}

// moveMacAddress gives the container's MAC address, as it was until 1.52, to
// the endpoint of the network it is started on.
func moveMacAddress(request *apicontainer.CreateRequest, text string) error {
	var address apinetwork.HardwareAddr
	if err := address.UnmarshalText([]byte(text)); err != nil {
		return errdefs.InvalidArgument.Errorf("invalid Config.MacAddress %q: %w", text, err)
	}
	mode := request.HostConfig.NetworkMode
	if mode.IsHost() || mode.IsContainer() || mode.IsNone() {
		return errdefs.InvalidArgument.Errorf("conflicting options: mac-address and the network mode")
	}
	if request.NetworkingConfig == nil {
		request.NetworkingConfig = &apinetwork.NetworkingConfig{}
	}
	endpoints := request.NetworkingConfig.EndpointsConfig
	name := string(mode)
	if name == "" || mode.IsDefault() {
		name = apinetwork.NetworkBridge
		if _, given := endpoints[apinetwork.NetworkDefault]; given {
			name = apinetwork.NetworkDefault
		}
	}
	if endpoints == nil {
		endpoints = make(map[string]*apinetwork.EndpointSettings)
		request.NetworkingConfig.EndpointsConfig = endpoints
	}
	if endpoints[name] == nil {
		endpoints[name] = &apinetwork.EndpointSettings{}
	}
	endpoints[name].MacAddress = address
	return nil
}

// waitCondition returns what POST /containers/{id}/wait waits for, and whether
// the headers are to be sent at once (since 1.30; before, there was neither).
func (v Version) waitCondition(given string) (apicontainer.WaitCondition, bool, error) {
	if v.Before(30) {
		return apicontainer.WaitConditionNotRunning, false, nil
	}
	switch condition := apicontainer.WaitCondition(given); condition {
	case "":
		return apicontainer.WaitConditionNotRunning, true, nil
	case apicontainer.WaitConditionNotRunning, apicontainer.WaitConditionNextExit, apicontainer.WaitConditionRemoved:
		return condition, true, nil
	}
	return "", false, errdefs.InvalidArgument.Errorf("invalid condition: %q, expected not-running, next-exit or removed", given)
}
