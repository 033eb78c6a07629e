package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

// Limits for what a registry may send.
const (
	maxManifest = 4 << 20 // what docker's own registry takes
	maxTagPage  = 4 << 20
	maxTags     = 100_000
)

// Repository is one repository, with the rights to pull or to push.
type Repository struct {
	client *Client
	named  reference.Named // without tag and digest
	path   string          // on the wire

	mu      sync.Mutex
	remotes []*remote // mirrors, then the registry itself; guarded by mu
}

// Pull returns a repository to pull from. Nothing is asked yet.
func (c *Client) Pull(ctx context.Context, named reference.Named, auth Auth) *Repository {
	r := c.repository(named)
	for _, mirror := range c.mirrors[reference.Domain(named)] { // credentials are the registry's
		mirror.insecure = mirror.insecure || c.insecure.holds(ctx, mirror.name)
		r.remotes = append(r.remotes, &remote{client: c, host: mirror, auth: authn.Anonymous, scopes: r.scopes("pull")})
	}
	r.remotes = append(r.remotes, &remote{client: c, host: c.hostOf(ctx, reference.Domain(named)), auth: authenticator(auth), scopes: r.scopes("pull")})
	return r
}

// Push returns a repository to push to. from are repositories of the same
// registry that blobs may be mounted from.
func (c *Client) Push(ctx context.Context, named reference.Named, auth Auth, from []string) *Repository {
	r := c.repository(named)
	scopes := r.scopes("push,pull")
	for _, path := range from {
		scopes = append(scopes, "repository:"+path+":pull")
	}
	r.remotes = []*remote{{client: c, host: c.hostOf(ctx, reference.Domain(named)), auth: authenticator(auth), scopes: scopes}}
	return r
}

func (c *Client) repository(named reference.Named) *Repository {
	named = reference.TrimNamed(named)
	return &Repository{client: c, named: named, path: reference.Path(named)}
}

func (r *Repository) scopes(actions string) []string {
	return []string{"repository:" + r.path + ":" + actions}
}

// ask asks the mirrors, then the registry. A mirror that fails is not asked
// again; what the registry says, counts.
func (r *Repository) ask(ctx context.Context, do func(context.Context, *remote) error) error {
	for {
		r.mu.Lock()
		first, last := r.remotes[0], len(r.remotes) == 1
		r.mu.Unlock()
		err := r.client.retry(ctx, func() error {
			ctx, cancel := context.WithTimeout(ctx, r.client.answerTimeout)
			defer cancel()
			return do(ctx, first)
		})
		if err == nil || last || ctx.Err() != nil {
			return err
		}
		r.client.log.WarnContext(ctx, "a mirror does not help", "mirror", first.host.name, "repository", r.named, "err", err)
		r.mu.Lock()
		if r.remotes[0] == first {
			r.remotes = r.remotes[1:]
		}
		r.mu.Unlock()
	}
}

// GiveUpMirror leaves out the mirror that is asked at present. It is false if
// that is the registry itself.
func (r *Repository) GiveUpMirror() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.remotes) == 1 {
		return false
	}
	r.client.log.Warn("a mirror does not help", "mirror", r.remotes[0].host.name, "repository", r.named)
	r.remotes = r.remotes[1:]
	return true
}

// Manifest is a manifest or an index as it came.
type Manifest struct {
	Descriptor ocispec.Descriptor
	Raw        []byte
}

// accepted are the media types that we can do something with.
var accepted = []string{DockerManifest, DockerManifestList, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex}

// Manifest fetches what a tag or digest means.
func (r *Repository) Manifest(ctx context.Context, at string) (m Manifest, err error) {
	err = r.ask(ctx, func(ctx context.Context, from *remote) (err error) {
		m, err = r.manifestFrom(ctx, from, at)
		return err
	})
	return m, classify(err, r.reference(at))
}

func (r *Repository) manifestFrom(ctx context.Context, from *remote, at string) (m Manifest, err error) {
	response, err := from.do(ctx, request{method: http.MethodGet, path: r.url("manifests", at), header: http.Header{"Accept": accepted}}, http.StatusOK)
	if err != nil {
		return m, err
	}
	m.Raw, err = read(response, maxManifest)
	if err != nil {
		return m, err
	}
	m.Descriptor = ocispec.Descriptor{MediaType: mediaTypeOf(response.Header.Get("Content-Type"), m.Raw), Size: int64(len(m.Raw)), Digest: digest.FromBytes(m.Raw)}
	if wanted, err := digest.Parse(at); err == nil {
		if got := wanted.Algorithm().FromBytes(m.Raw); got != wanted {
			return m, wrongDigest("manifest", got, wanted)
		}
		m.Descriptor.Digest = wanted
	}
	return m, nil
}

// mediaTypeOf prefers what the content says about itself: it is what the
// digest is of.
func mediaTypeOf(header string, raw []byte) string {
	var own struct{ MediaType string }
	if json.Unmarshal(raw, &own) == nil && own.MediaType != "" {
		return own.MediaType
	}
	given, _, _ := strings.Cut(header, ";")
	return strings.TrimSpace(given)
}

// reference is the repository with a tag or digest, for messages.
func (r *Repository) reference(at string) reference.Named {
	if d, err := digest.Parse(at); err == nil {
		if named, err := reference.WithDigest(r.named, d); err == nil {
			return named
		}
	}
	if named, err := reference.WithTag(r.named, at); err == nil {
		return named
	}
	return r.named
}

func (r *Repository) url(parts ...string) string {
	return "/v2/" + r.path + "/" + strings.Join(parts, "/")
}

// Small fetches a blob that fits into memory, an image's configuration.
func (r *Repository) Small(ctx context.Context, of ocispec.Descriptor, limit int64) (raw []byte, err error) {
	if of.Size < 0 || of.Size > limit {
		return nil, errdefs.InvalidArgument.Errorf("blob %s has %d bytes; at most %d are allowed", of.Digest, of.Size, limit)
	}
	err = r.ask(ctx, func(ctx context.Context, from *remote) error {
		response, err := from.do(ctx, request{method: http.MethodGet, path: r.url("blobs", of.Digest.String())}, http.StatusOK)
		if err != nil {
			return err
		}
		if raw, err = read(response, limit); err != nil {
			return err
		}
		if got := of.Digest.Algorithm().FromBytes(raw); got != of.Digest {
			return wrongDigest("image config", got, of.Digest)
		}
		return nil
	})
	return raw, classify(err, r.named)
}

// Tags lists the repository's tags.
func (r *Repository) Tags(ctx context.Context) (tags []string, err error) {
	next := r.url("tags", "list")
	for next != "" {
		var page struct{ Tags []string }
		var after string
		err := r.ask(ctx, func(ctx context.Context, from *remote) error {
			response, err := from.do(ctx, request{method: http.MethodGet, path: next}, http.StatusOK)
			if err != nil {
				return err
			}
			after = nextPage(response)
			raw, err := read(response, maxTagPage)
			if err != nil {
				return err
			}
			return decode("the list of tags", raw, &page)
		})
		if err != nil {
			return nil, classify(err, r.named)
		}
		if tags = append(tags, page.Tags...); len(tags) > maxTags || after != "" && len(page.Tags) == 0 {
			return nil, fmt.Errorf("listing tags of %s: %w", r.named, errTooLarge)
		}
		next = after
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

// nextPage reads a Link header with rel="next"; only its path and query count,
// so that a list stays with its registry.
func nextPage(response *http.Response) string {
	link := response.Header.Get("Link")
	target, relation, found := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !found || !strings.Contains(relation, "next") {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	u = response.Request.URL.ResolveReference(u)
	return u.RequestURI()
}

func decode(what string, raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return errdefs.InvalidArgument.Errorf("%s: %w", what, err)
	}
	return nil
}

// isStatus is true for a refusal with one of these statuses.
func isStatus(err error, statuses ...int) bool {
	return err != nil && !errors.Is(err, context.Canceled) && slices.Contains(statuses, statusOf(err))
}
