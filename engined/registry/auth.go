package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	apiregistry "github.com/moby/moby/api/types/registry"

	"github.com/engined/engined/proto/errdefs"
)

// Auth is what a client gives to be let in; the zero Auth is nobody.
type Auth = apiregistry.AuthConfig

// DecodeAuth reads the header X-Registry-Auth: JSON in URL-safe base64, with
// padding or without. No header is nobody.
func DecodeAuth(header string) (Auth, error) {
	var auth Auth
	if header == "" {
		return auth, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(header, "="))
	if err != nil {
		return auth, errdefs.InvalidArgument.Errorf("invalid X-Registry-Auth header: must be a valid base64url-encoded string")
	}
	if err := json.Unmarshal(raw, &auth); err != nil {
		// The decoder's complaint could quote a password.
		return Auth{}, errdefs.InvalidArgument.Errorf("invalid X-Registry-Auth header: expected a JSON object")
	}
	return auth, nil
}

// authenticator is the credentials in go-containerregistry's words.
func authenticator(auth Auth) authn.Authenticator {
	if auth.Username == "" && auth.Password == "" && auth.Auth == "" && auth.IdentityToken == "" && auth.RegistryToken == "" {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{Username: auth.Username, Password: auth.Password, Auth: auth.Auth,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken})
}

// Login checks credentials at the registry they are for.
func (c *Client) Login(ctx context.Context, auth Auth) error {
	at, err := c.hostOfAddress(ctx, auth.ServerAddress)
	if err != nil {
		return err
	}
	r := &remote{client: c, host: at, auth: authenticator(auth)}
	if r.auth == authn.Anonymous {
		return errdefs.InvalidArgument.Errorf("no credentials given: expected a user name and a password, or a token")
	}
	response, err := r.do(ctx, request{method: http.MethodGet, path: "/v2/"}, http.StatusOK)
	if err == nil {
		return response.Body.Close()
	}
	var refused *transport.Error
	if errors.As(err, &refused) && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden) {
		return errdefs.Unauthenticated.Errorf("login attempt to %s failed with status: %d %s", where(refused, at), refused.StatusCode, http.StatusText(refused.StatusCode))
	}
	return fmt.Errorf("logging in to %s: %w", at.name, err)
}

// where is the address that refused, without what a query may hold.
func where(refused *transport.Error, at host) string {
	if refused.Request == nil {
		return at.name
	}
	u := *refused.Request.URL
	u.RawQuery, u.User = "", nil
	return u.String()
}

// hostOfAddress takes what people and old clients write: a host, or a URL.
func (c *Client) hostOfAddress(ctx context.Context, address string) (host, error) {
	if address == "" {
		address = hubAddress
	}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return host{}, errdefs.InvalidArgument.Errorf("invalid server address %q: expected HOST[:PORT]", address)
	}
	return c.hostOf(ctx, u.Host), nil
}
