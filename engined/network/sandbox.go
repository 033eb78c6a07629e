package network

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

// Default is the network of a container that asks for none in particular.
func (s *Service) Default() apicontainer.NetworkMode {
	if s.bridged() {
		return apinetwork.NetworkBridge
	}
	return apinetwork.NetworkNone
}

// Check says at a container's creation whether its endpoint settings can be
// served. Mode container:X is its caller's business. A network that does not
// exist is left to Allocate: docker takes a 404 at create for a missing image.
func (s *Service) Check(mode apicontainer.NetworkMode, endpoints map[string]*apinetwork.EndpointSettings) error {
	if mode.IsContainer() {
		return nil
	}
	for name, settings := range endpoints {
		if s.name(apicontainer.NetworkMode(name)) != s.name(mode) {
			return errdefs.NotImplemented.Errorf("NetworkingConfig.EndpointsConfig.%s: a second network for a container is not implemented", name)
		}
		if err := checkEndpoint(name, settings); err != nil {
			return err
		}
	}
	return nil
}

// checkEndpoint refuses what would otherwise be ignored.
func checkEndpoint(name string, e *apinetwork.EndpointSettings) error {
	field := func(what string) error {
		return errdefs.NotImplemented.Errorf("NetworkingConfig.EndpointsConfig.%s.%s is not implemented", name, what)
	}
	switch {
	case e == nil:
		return nil
	case len(e.Links) > 0:
		return field("Links")
	case len(e.Aliases) > 0:
		return field("Aliases")
	case len(e.DriverOpts) > 0:
		return field("DriverOpts")
	case e.IPAMConfig != nil && (e.IPAMConfig.IPv6Address.IsValid() || len(e.IPAMConfig.LinkLocalIPs) > 0):
		return field("IPAMConfig: IPv6")
	}
	return nil
}

// name maps a network mode to a network's name, if there is such a network.
func (s *Service) name(mode apicontainer.NetworkMode) string {
	if mode == "" || mode.IsDefault() {
		mode = s.Default()
	}
	if network, err := s.find(string(mode)); err == nil {
		return network.name
	}
	return string(mode)
}

// Allocate makes a container's sandbox. What it made is undone on failure;
// afterwards Release gives it back.
func (s *Service) Allocate(ctx context.Context, req Request) (Sandbox, error) {
	network, err := s.find(s.name(req.Mode))
	if err != nil {
		return Sandbox{}, err
	}
	asked := s.askedOf(network, req.Endpoints)
	switch network.driver {
	case "host":
		return s.hostSandbox(req, network)
	case "null":
		return s.emptySandbox(req, network)
	}
	return s.bridgeSandbox(ctx, req, network, asked)
}

// askedOf returns what was asked of a network by its name, else by another that
// it has: an id, or default.
func (s *Service) askedOf(network record, endpoints map[string]*apinetwork.EndpointSettings) *apinetwork.EndpointSettings {
	if asked := endpoints[network.name]; asked != nil {
		return asked
	}
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		if s.name(apicontainer.NetworkMode(name)) == network.name && endpoints[name] != nil {
			return endpoints[name]
		}
	}
	return nil
}

func (s *Service) hostSandbox(req Request, network record) (Sandbox, error) {
	box := Sandbox{Host: true, Endpoints: settingsOf(network, endpoint{})}
	return box, s.files(&box, req, netip.Addr{})
}

func (s *Service) emptySandbox(req Request, network record) (Sandbox, error) {
	box := Sandbox{Endpoints: settingsOf(network, endpoint{})}
	return box, s.files(&box, req, netip.Addr{})
}

func (s *Service) bridgeSandbox(ctx context.Context, req Request, network record, asked *apinetwork.EndpointSettings) (box Sandbox, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)

	end, err := s.reserve(ctx, req, network, asked)
	if err != nil {
		return Sandbox{}, err
	}
	// From here on the row stands for namespace and link: the sweeper takes
	// away whatever of them was made.
	undo.Add("release "+end.address.String(), func(ctx context.Context) error { return s.Release(ctx, req.ContainerID) })

	path := filepath.Join(s.sandboxDir(), end.sandbox)
	if err := makeNamespace(path); err != nil {
		return Sandbox{}, fmt.Errorf("network namespace of %s: %w", req.ContainerID, err)
	}
	if err := s.connect(end, path); err != nil {
		return Sandbox{}, fmt.Errorf("connecting %s to network %s: %w", req.ContainerID, network.name, err)
	}
	box = Sandbox{Path: path, Endpoints: s.connectedSettings(network, end, asked)}
	if err := s.files(&box, req, end.address); err != nil {
		return Sandbox{}, err
	}
	s.publish(apievents.ActionConnect, network, req.ContainerID)
	return box, nil
}

// reserve chooses an address and writes the endpoint's row. A released row that
// stands in the way is swept first: a restart asks for its own address again
// before the sweeper has come to it.
func (s *Service) reserve(ctx context.Context, req Request, network record, asked *apinetwork.EndpointSettings) (endpoint, error) {
	for {
		end, inTheWay, err := s.tryReserve(ctx, req, network, asked)
		if err == nil {
			return end, nil
		}
		// Each round ends a row, so there is a last one.
		if len(inTheWay) == 0 || ctx.Err() != nil {
			return endpoint{}, fmt.Errorf("address on network %s: %w", network.name, errors.Join(err, ctx.Err()))
		}
		if failed := s.sweepFirst(ctx, inTheWay); failed != nil {
			return endpoint{}, fmt.Errorf("address on network %s: %w", network.name, errors.Join(err, failed))
		}
	}
}

// tryReserve also returns, if there was no address, the released endpoints that
// hold one that would do.
func (s *Service) tryReserve(ctx context.Context, req Request, network record, asked *apinetwork.EndpointSettings) (end endpoint, inTheWay []endpoint, err error) {
	s.allocate.Lock()
	defer s.allocate.Unlock()
	end = endpoint{id: randomHex(32), container: req.ContainerID, network: network.id, name: req.ContainerName,
		link: "veth" + randomHex(4), sandbox: randomHex(6), created: time.Now()}
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		taken, last, err := addresses(ctx, tx, network.id)
		if err != nil {
			return err
		}
		if end.address, end.mac, err = choose(s.options.Subnet, asked, last, taken); err == nil {
			return end.insert(ctx, tx)
		}
		if kind := errdefs.KindOf(err); kind != errdefs.PermissionDenied && kind != errdefs.ResourceExhausted {
			return err
		}
		// Looked up here, or the sweeper might have ended the row in between.
		var failed error
		inTheWay, failed = released(ctx, tx, network.id, askedFor(asked))
		return errors.Join(err, failed)
	})
	return end, inTheWay, err
}

// sweepFirst sweeps the first of ends that can be swept.
func (s *Service) sweepFirst(ctx context.Context, ends []endpoint) (failed error) {
	for _, end := range ends {
		err := s.sweepEndpoint(ctx, end)
		if err == nil {
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("removing released endpoint %s of %s: %w", end.link, end.container, err))
	}
	return failed
}

// settingsOf is what inspect shows of an endpoint.
func settingsOf(network record, end endpoint) map[string]*apinetwork.EndpointSettings {
	return map[string]*apinetwork.EndpointSettings{network.name: {NetworkID: network.id, EndpointID: end.id}}
}

func (s *Service) connectedSettings(network record, end endpoint, asked *apinetwork.EndpointSettings) map[string]*apinetwork.EndpointSettings {
	settings := settingsOf(network, end)
	shown := settings[network.name]
	if asked != nil {
		shown.IPAMConfig = asked.IPAMConfig.Copy()
		shown.GwPriority = asked.GwPriority
	}
	shown.IPAddress = end.address
	shown.IPPrefixLen = s.options.Subnet.Bits()
	shown.Gateway = s.options.Subnet.Addr()
	shown.MacAddress = apinetwork.HardwareAddr(end.mac)
	return settings
}

// Release marks the container's endpoints for the sweeper. It is idempotent
// and waits for the database only.
func (s *Service) Release(ctx context.Context, containerID string) error {
	var released bool
	err := s.db.Update(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE endpoints SET released = 1 WHERE container = ? AND released = 0`, containerID)
		if err != nil {
			return err
		}
		rows, err := result.RowsAffected()
		released = rows > 0
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing network of %s: %w", containerID, err)
	}
	if released {
		s.wakeSweeper()
		if bridge, err := s.find(apinetwork.NetworkBridge); err == nil {
			s.publish(apievents.ActionDisconnect, bridge, containerID)
		}
	}
	return nil
}

func (s *Service) publish(action apievents.Action, network record, containerID string) {
	s.events.Publish(apievents.NetworkEventType, action, apievents.Actor{ID: network.id,
		Attributes: map[string]string{"container": containerID, "name": network.name, "type": network.driver}})
}

// files renders /etc/hosts and /etc/resolv.conf into box.
func (s *Service) files(box *Sandbox, req Request, own netip.Addr) (err error) {
	if box.Hosts, err = hosts(req, own, box.Host, s.options.Subnet.Addr()); err != nil {
		return err
	}
	box.ResolvConf, err = resolvConf(req, box.Host)
	return err
}

// endpoint is a row of the table of that name.
type endpoint struct {
	id        string
	container string
	network   string
	name      string
	address   netip.Addr
	mac       net.HardwareAddr
	link      string
	sandbox   string
	created   time.Time
	released  bool
}

func (e *endpoint) insert(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx,
		`INSERT INTO endpoints (id, container, network, name, address, mac, link, sandbox, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.id, e.container, e.network, e.name, e.address.String(), e.mac.String(), e.link, e.sandbox, e.created.UnixNano())
	return err
}

// addresses returns what is taken on a network and the address given last.
func addresses(ctx context.Context, tx *sql.Tx, networkID string) (taken map[netip.Addr]bool, last netip.Addr, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT address FROM endpoints WHERE network = ? ORDER BY created`, networkID)
	if err != nil {
		return nil, last, err
	}
	defer rows.Close()
	taken = make(map[netip.Addr]bool)
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, last, err
		}
		if last, err = netip.ParseAddr(text); err != nil {
			return nil, last, err
		}
		taken[last] = true
	}
	return taken, last, rows.Err()
}

// released returns the endpoints that the sweeper has not come to yet, the
// oldest first: that of an address, or all if it is the zero one.
func released(ctx context.Context, tx *sql.Tx, networkID string, at netip.Addr) ([]endpoint, error) {
	if at.IsValid() {
		return readEndpoints(ctx, tx, `WHERE released = 1 AND network = ? AND address = ?`, networkID, at.String())
	}
	return readEndpoints(ctx, tx, `WHERE released = 1 AND network = ? ORDER BY created`, networkID)
}
