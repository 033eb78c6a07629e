package network

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

// DefaultBridge and DefaultSubnet are used where Options leaves them empty.
const (
	DefaultBridge = "engined0"
	NoBridge      = "none"
)

// DefaultSubnet is the bridge's own address and its subnet.
var DefaultSubnet = netip.MustParsePrefix("172.18.0.1/16")

// Options configure Open.
type Options struct {
	ExecRoot  string       // namespaces are kept in its netns/
	Bridge    string       // name of the bridge's link; "": DefaultBridge, "none": no bridge network
	Subnet    netip.Prefix // the bridge's address and prefix; zero: those of a bridge not engined's own, else DefaultSubnet
	NoForward bool         // leave net.ipv4.ip_forward as it is
	NoRules   bool         // make no firewall rules
	Logger    *slog.Logger // nil: slog.Default()
}

// Request says what a container's start needs.
type Request struct {
	ContainerID   string
	ContainerName string // without the slash
	Hostname      string
	Domainname    string
	Mode          apicontainer.NetworkMode
	Endpoints     map[string]*apinetwork.EndpointSettings // as asked for at create
	ExtraHosts    []string                                // NAME:ADDRESS or NAME=ADDRESS
	DNS           []netip.Addr
	DNSSearch     []string
	DNSOptions    []string
}

// Sandbox is what a container gets.
type Sandbox struct {
	Host       bool                                    // the host's own network namespace
	Path       string                                  // namespace to join; "" and not Host: the runtime makes one with lo up
	Endpoints  map[string]*apinetwork.EndpointSettings // by network name
	Hosts      []byte                                  // for /etc/hosts
	ResolvConf []byte                                  // for /etc/resolv.conf
}

// record is one network, immutable after Open.
type record struct {
	id      string
	name    string
	driver  string
	created time.Time
}

// Service owns the sandboxes, endpoints and addresses of one engined.
type Service struct {
	db      *store.DB
	events  *events.Log
	options Options
	log     *slog.Logger
	records []record // bridge (unless disabled), host, none

	// allocate serialises choosing an address with writing its row. No link
	// is touched under it.
	allocate sync.Mutex

	wake    chan struct{} // capacity 1: rows were marked released
	stop    context.CancelFunc
	stopped chan struct{} // closed when the sweeper has ended
}

var migrations = []string{
	`CREATE TABLE networks (
		id      TEXT PRIMARY KEY,
		name    TEXT NOT NULL UNIQUE,
		driver  TEXT NOT NULL,
		created INTEGER NOT NULL -- Unix nanoseconds
	) STRICT;
	CREATE TABLE endpoints (
		id        TEXT PRIMARY KEY,
		container TEXT NOT NULL,
		network   TEXT NOT NULL REFERENCES networks(id),
		name      TEXT NOT NULL,        -- the container's, for inspect
		address   TEXT NOT NULL,        -- IPv4
		mac       TEXT NOT NULL,
		link      TEXT NOT NULL,        -- the host's end of the veth pair
		sandbox   TEXT NOT NULL,        -- file name in EXEC-ROOT/netns
		created   INTEGER NOT NULL,     -- Unix nanoseconds
		released  INTEGER NOT NULL DEFAULT 0,
		UNIQUE (network, address)
	) STRICT;
	CREATE INDEX endpoints_container ON endpoints(container);`,
}

// linkName is what the kernel and this package take for a bridge's name: at
// most 15 bytes (IFNAMSIZ less the NUL).
var linkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// Open loads the networks, makes the bridge and its rules, and starts the
// sweeper. Close ends what Open began.
func Open(ctx context.Context, db *store.DB, log *events.Log, options Options) (_ *Service, err error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "network", migrations); err != nil {
		return nil, err
	}
	s := &Service{db: db, events: log, options: options, log: options.Logger,
		wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	if err := os.MkdirAll(s.sandboxDir(), 0o700); err != nil {
		return nil, fmt.Errorf("network sandboxes: %w", err)
	}
	if s.records, err = s.loadRecords(ctx); err != nil {
		return nil, err
	}
	var undo errdefs.Undo
	defer undo.OnError(&err)
	if s.bridged() {
		if err := s.openBridge(&undo); err != nil {
			return nil, err
		}
	}
	sweeping, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.sweep(sweeping)
	return s, nil
}

func (o *Options) complete() error {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Bridge == "" {
		o.Bridge = DefaultBridge
	}
	if !linkName.MatchString(o.Bridge) {
		return errdefs.InvalidArgument.Errorf("bridge: invalid link name %q: expected %s", o.Bridge, linkName)
	}
	if o.Subnet.IsValid() {
		if err := checkSubnet(o.Subnet); err != nil {
			return fmt.Errorf("bip: %w", err)
		}
	} else if o.Bridge == NoBridge {
		o.Subnet = DefaultSubnet
	}
	return nil
}

func checkSubnet(p netip.Prefix) error {
	if !p.Addr().Is4() || p.Bits() > 29 || p.Addr() == p.Masked().Addr() {
		return errdefs.InvalidArgument.Errorf("%s: expected an IPv4 host address with a prefix of at most 29 bits, as 172.18.0.1/16", p)
	}
	return nil
}

// Close waits for the sweeper and, if no endpoint is left, takes the rules away
// and the bridge if engined made it. With endpoints they stay: containers go on.
func (s *Service) Close(ctx context.Context) error {
	s.stop()
	<-s.stopped
	s.sweepOnce(ctx)
	if !s.bridged() {
		return nil
	}
	left, err := s.endpoints(ctx, "")
	if err != nil || len(left) > 0 {
		return err
	}
	return s.closeBridge()
}

func (s *Service) bridged() bool { return s.options.Bridge != NoBridge }

func (s *Service) sandboxDir() string { return filepath.Join(s.options.ExecRoot, "netns") }

// loadRecords reads the three networks, making those that are not there yet.
func (s *Service) loadRecords(ctx context.Context) ([]record, error) {
	wanted := []record{{name: "bridge", driver: "bridge"}, {name: "host", driver: "host"}, {name: "none", driver: "null"}}
	if !s.bridged() {
		wanted = wanted[1:]
	}
	err := s.db.Update(ctx, func(tx *sql.Tx) error {
		for i := range wanted {
			if err := wanted[i].loadOrMake(ctx, tx); err != nil {
				return fmt.Errorf("network %s: %w", wanted[i].name, err)
			}
		}
		return nil
	})
	return wanted, err
}

func (r *record) loadOrMake(ctx context.Context, tx *sql.Tx) error {
	var created int64
	err := tx.QueryRowContext(ctx, `SELECT id, created FROM networks WHERE name = ?`, r.name).Scan(&r.id, &created)
	if errors.Is(err, sql.ErrNoRows) {
		r.id = randomHex(32)
		created = time.Now().UnixNano()
		_, err = tx.ExecContext(ctx, `INSERT INTO networks (id, name, driver, created) VALUES (?, ?, ?, ?)`, r.id, r.name, r.driver, created)
	}
	r.created = time.Unix(0, created).UTC()
	return err
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	_, _ = rand.Read(raw) // never fails, see crypto/rand
	return hex.EncodeToString(raw)
}
