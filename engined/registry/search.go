package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	apiregistry "github.com/moby/moby/api/types/registry"

	"github.com/engined/engined/proto/errdefs"
)

// Bounds of a search, as dockerd's.
const (
	defaultLimit = 25
	maxLimit     = 100
	maxResults   = 4 << 20 // bytes
)

// SearchRequest says what to look for.
type SearchRequest struct {
	Term     string // with the registry's host before it, or Docker Hub's
	Limit    int    // 0: 25
	Auth     Auth
	Official *bool
	Stars    int // at least
}

// Search asks a registry's index, which speaks the protocol's first version:
// the second has no search.
func (c *Client) Search(ctx context.Context, req SearchRequest) ([]apiregistry.SearchResult, error) {
	if req.Limit == 0 {
		req.Limit = defaultLimit
	}
	if req.Limit < 1 || req.Limit > maxLimit {
		return nil, errdefs.InvalidArgument.Errorf("limit %d is outside the range of [1, %d]", req.Limit, maxLimit)
	}
	domain, term := searchHost(req.Term)
	if term == "" {
		return nil, errdefs.InvalidArgument.Errorf("parameter term: expected something to look for")
	}
	at := host{domain, c.insecure.holds(ctx, domain)}
	query := url.Values{"q": {term}, "n": {strconv.Itoa(req.Limit)}}
	var found apiregistry.SearchResults
	err := c.retry(ctx, func() error { return c.search(ctx, at, "/v1/search?"+query.Encode(), req.Auth, &found) })
	if err != nil {
		return nil, err
	}
	return req.pick(found.Results), nil
}

// pick applies the filters, which are not the registry's.
func (req SearchRequest) pick(all []apiregistry.SearchResult) []apiregistry.SearchResult {
	picked := []apiregistry.SearchResult{}
	for _, result := range all {
		if (req.Official == nil || *req.Official == result.IsOfficial) && result.StarCount >= req.Stars && len(picked) < req.Limit {
			picked = append(picked, result)
		}
	}
	return picked
}

// searchHost splits a registry off a term: what has a dot or a port is one.
func searchHost(term string) (domain, rest string) {
	first, after, found := strings.Cut(term, "/")
	if !found || !strings.ContainsAny(first, ".:") && first != "localhost" || first == hub || first == hubIndex {
		return hubIndex, strings.TrimPrefix(strings.TrimPrefix(term, hub+"/"), hubIndex+"/")
	}
	return first, after
}

// search asks over HTTPS, and where it is allowed over HTTP after that failed.
func (c *Client) search(ctx context.Context, at host, path string, auth Auth, into any) error {
	base, err := c.transport(at)
	if err != nil {
		return err
	}
	schemes := []string{"https"}
	if at.insecure {
		schemes = append(schemes, "http")
	}
	for _, scheme := range schemes {
		if err = get(ctx, base, scheme+"://"+at.name+path, auth, into); err == nil || statusOf(err) != 0 || ctx.Err() != nil {
			break
		}
	}
	return err
}

func get(ctx context.Context, base http.RoundTripper, address string, auth Auth, into any) (err error) {
	sent, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return errdefs.InvalidArgument.Errorf("searching: %w", err)
	}
	if auth.Username != "" {
		sent.SetBasicAuth(auth.Username, auth.Password)
	}
	client := &http.Client{Transport: base, CheckRedirect: fewRedirects}
	response, err := client.Do(sent)
	if err != nil {
		return err
	}
	if err := transport.CheckError(response, http.StatusOK); err != nil {
		return errors.Join(&refusal{cause: err, header: response.Header}, response.Body.Close())
	}
	raw, err := read(response, maxResults)
	if err != nil {
		return err
	}
	return decode("the results of the search", raw, into)
}
