package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/engined/engined/proto/errdefs"
)

// remote is a registry that we are, or will be, connected to with certain
// rights.
type remote struct {
	client *Client
	host   host
	auth   authn.Authenticator
	scopes []string

	mu   sync.Mutex   // held while connecting, which asks for a token
	http *http.Client // nil until connected; guarded by mu
}

// request is one exchange.
type request struct {
	method string
	path   string // or a whole URL, as a registry gave it
	header http.Header
	body   io.Reader
	size   int64 // of the body
}

// maxRedirects is what a blob may be away from its registry.
const maxRedirects = 5

// connect finds out how the registry wants to be talked to.
func (r *remote) connect(ctx context.Context) (*http.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.http != nil {
		return r.http, nil
	}
	registry, err := r.host.registry()
	if err != nil {
		return nil, err
	}
	base, err := r.client.transport(r.host)
	if err != nil {
		return nil, err
	}
	authenticated, err := transport.NewWithContext(ctx, registry, r.auth, base, r.scopes)
	if err != nil {
		return nil, err
	}
	r.http = &http.Client{Transport: authenticated, CheckRedirect: fewRedirects}
	return r.http, nil
}

func fewRedirects(_ *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return errdefs.InvalidArgument.Errorf("stopped after %d redirects", maxRedirects)
	}
	return nil
}

// do sends a request; an answer with a status that is not among the wanted ones
// is an error. The caller closes the answer's body.
func (r *remote) do(ctx context.Context, q request, wanted ...int) (*http.Response, error) {
	client, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	sent, err := r.prepare(ctx, q)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(sent)
	if err != nil {
		return nil, err
	}
	if err := r.check(response, wanted); err != nil {
		return nil, errors.Join(err, response.Body.Close())
	}
	return response, nil
}

func (r *remote) prepare(ctx context.Context, q request) (*http.Request, error) {
	base := &url.URL{Scheme: "https", Host: r.host.name} // the transport knows if it is http
	at, err := base.Parse(q.path)
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("the registry's address %q: %w", q.path, err)
	}
	sent, err := http.NewRequestWithContext(ctx, q.method, at.String(), q.body)
	if err != nil {
		return nil, err
	}
	for key, values := range q.header {
		sent.Header[key] = values
	}
	if q.body != nil {
		sent.ContentLength = q.size
	}
	return sent, nil
}

// check classifies an answer.
func (r *remote) check(response *http.Response, wanted []int) error {
	err := transport.CheckError(response, wanted...)
	if err == nil {
		return nil
	}
	if response.StatusCode == http.StatusUnauthorized && r.auth == authn.Anonymous && asksBasic(response.Header) {
		u := *response.Request.URL
		u.RawQuery = ""
		return &refusal{cause: err, text: fmt.Sprintf("%s %q: no basic auth credentials", title(response.Request.Method), u.String()), header: response.Header}
	}
	return &refusal{cause: err, header: response.Header}
}

// read reads a small body.
func read(response *http.Response, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading the registry's answer: %w", err)
	}
	if int64(len(raw)) > limit {
		return nil, errTooLarge
	}
	return raw, nil
}
