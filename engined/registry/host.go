package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/engined/engined/proto/errdefs"
)

// Docker Hub's names: in references, on the wire, and where people log in.
const (
	hub        = "docker.io"
	hubHost    = "registry-1.docker.io"
	hubIndex   = "index.docker.io"
	hubAddress = "https://index.docker.io/v1/"
)

// host is where a registry listens.
type host struct {
	name     string // host[:port]
	insecure bool   // plain HTTP and unknown certificates will do
}

// insecure says which hosts may be talked to without a verified TLS.
type insecure struct {
	hosts    []string
	networks []netip.Prefix
}

// parseInsecure reads daemon.json's insecure-registries.
func parseInsecure(entries []string) (insecure, error) {
	in := insecure{networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
	for _, entry := range entries {
		if network, err := netip.ParsePrefix(entry); err == nil {
			in.networks = append(in.networks, network.Masked())
			continue
		}
		bare := strings.TrimPrefix(strings.TrimPrefix(entry, "http://"), "https://") // dockerd takes those, too
		if err := checkHost(bare); err != nil {
			return in, errdefs.InvalidArgument.Errorf("insecure-registries: expected HOST[:PORT] or a network as 10.0.0.0/8, got %q: %w", entry, err)
		}
		in.hosts = append(in.hosts, bare)
	}
	return in, nil
}

func checkHost(given string) error {
	parsed, err := url.Parse("https://" + given)
	if err != nil {
		return err
	}
	if given == "" || parsed.Host != given {
		return errors.New("not a host name")
	}
	return nil
}

// holds looks the host's addresses up if only a network can tell. A name that
// has none is not insecure.
func (in insecure) holds(ctx context.Context, given string) bool {
	if slices.Contains(in.hosts, given) {
		return true
	}
	bare, _, err := net.SplitHostPort(given)
	if err != nil {
		bare = strings.Trim(given, "[]")
	}
	addresses, err := addressesOf(ctx, bare)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addresses, func(a netip.Addr) bool {
		return slices.ContainsFunc(in.networks, func(n netip.Prefix) bool { return n.Contains(a.Unmap()) })
	})
}

const lookUpTimeout = 5 * time.Second

func addressesOf(ctx context.Context, bare string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(bare); err == nil {
		return []netip.Addr{address}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", bare)
}

// parseMirrors reads daemon.json's registry-mirrors: URL for Docker Hub's, or
// HOST=URL for those of another registry. They are asked in their order.
func parseMirrors(entries []string) (map[string][]host, error) {
	mirrors := map[string][]host{}
	for _, entry := range entries {
		of, address := hub, entry
		if before, after, two := strings.Cut(entry, "="); two && !strings.Contains(before, "://") {
			if err := checkHost(before); err != nil {
				return nil, errdefs.InvalidArgument.Errorf("registry-mirrors: expected HOST=URL, got the host %q: %w", before, err)
			}
			of, address = before, after
		}
		u, err := url.Parse(address)
		if err != nil {
			return nil, errdefs.InvalidArgument.Errorf("registry-mirrors: %w", err)
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, errdefs.InvalidArgument.Errorf("registry-mirrors: expected http:// or https:// and a host, got %q", u.Redacted())
		}
		mirrors[of] = append(mirrors[of], host{u.Host, u.Scheme == "http"})
	}
	return mirrors, nil
}

// hostOf is where the registry of a reference listens.
func (c *Client) hostOf(ctx context.Context, domain string) host {
	if domain == hub || domain == hubIndex {
		domain = hubHost
	}
	return host{domain, c.insecure.holds(ctx, domain)}
}

// registry is the host in go-containerregistry's words.
func (h host) registry() (name.Registry, error) {
	options := []name.Option{name.StrictValidation}
	if h.insecure {
		options = append(options, name.Insecure)
	}
	registry, err := name.NewRegistry(h.name, options...)
	if err != nil {
		return registry, errdefs.InvalidArgument.Errorf("%w", err)
	}
	return registry, nil
}

// transport returns the host's connections; they outlive a pull.
func (c *Client) transport(h host) (http.RoundTripper, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.transports[h]; known != nil {
		return known, nil
	}
	settings, err := c.tlsFor(h)
	if err != nil {
		return nil, err
	}
	t := &guard{agent: c.options.Agent, insecure: h.insecure, Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       settings,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   c.options.Downloads + 1,
		DisableCompression:    true, // blobs are wanted as they are
		// Parallel blobs get a connection each instead of one that they share.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}}
	c.transports[h] = t
	return t, nil
}

// guard refuses plain HTTP where it is not allowed: go-containerregistry also
// falls back to it in private networks, and a redirect may lead there.
type guard struct {
	*http.Transport
	agent    string
	insecure bool
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.insecure {
		return nil, errdefs.FailedPrecondition.Errorf("refusing to talk to %s over plain HTTP: it is not among the insecure registries", r.URL.Host)
	}
	if g.agent != "" {
		r = r.Clone(r.Context())
		r.Header.Set("User-Agent", g.agent)
	}
	return g.Transport.RoundTrip(r)
}

// tlsFor reads the host's certificates, laid out as Docker's certs.d.
func (c *Client) tlsFor(h host) (*tls.Config, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.insecure} //nolint:gosec // that is what insecure means
	if strings.ContainsAny(h.name, `/\`) || strings.HasPrefix(h.name, ".") {
		return nil, errdefs.InvalidArgument.Errorf("invalid registry host %q", h.name)
	}
	for _, parent := range c.options.CertDirs {
		dir := filepath.Join(parent, h.name)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the registry's certificates: %w", err)
		}
		return settings, addCertificates(settings, dir, entries)
	}
	return settings, nil
}

func addCertificates(settings *tls.Config, dir string, entries []fs.DirEntry) error {
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		var err error
		switch filepath.Ext(path) {
		case ".crt":
			err = addRoot(settings, path)
		case ".cert":
			var pair tls.Certificate
			pair, err = tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
			settings.Certificates = append(settings.Certificates, pair)
		}
		if err != nil {
			return errdefs.FailedPrecondition.Errorf("reading the registry's certificates: %s: %w", path, err)
		}
	}
	return nil
}

// addRoot trusts a CA beside the system's.
func addRoot(settings *tls.Config, path string) error {
	pem, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if settings.RootCAs == nil {
		if settings.RootCAs, err = x509.SystemCertPool(); err != nil {
			settings.RootCAs = x509.NewCertPool()
		}
	}
	if !settings.RootCAs.AppendCertsFromPEM(pem) {
		return errors.New("it holds no certificate")
	}
	return nil
}
