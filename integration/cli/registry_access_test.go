package cli

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	gname "github.com/google/go-containerregistry/pkg/name"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/engined/engined/integration/harness"
)

// trust puts an authority's files where engined looks for a registry's.
func trust(t *testing.T, certs, host string, a *harness.Authority, files ...string) {
	t.Helper()
	dir := filepath.Join(certs, host)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(filepath.Join(a.Dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A registry off the loopback network is talked to with verified TLS alone; its
// authority and the client's certificate are in the certificates' directory.
func TestRegistryWithTLS(t *testing.T) {
	address := harness.LoopbackAddress(t)
	authority, certs := harness.NewAuthority(t, address), t.TempDir()
	open := func(client bool) *harness.Registry {
		return harness.NewRegistryWith(t, harness.RegistryOptions{Address: address, TLS: authority.Dir, ClientTLS: client})
	}
	known, unknown, closed, half := open(false), open(false), open(true), open(true)
	plain := harness.NewRegistryWith(t, harness.RegistryOptions{Address: address})
	trust(t, certs, known.Host, authority, "ca.crt")
	trust(t, certs, closed.Host, authority, "ca.crt", "client.cert", "client.key")
	trust(t, certs, half.Host, authority, "ca.crt")
	stack := harness.New(t, harness.Options{Engined: []string{"--registry-certs", certs}})
	cli := harness.AnyCLI(t).At(t, stack.Host())
	for _, r := range []*harness.Registry{known, closed} {
		name := r.Host + "/some/thing:1"
		cli.Must(t, "tag", harness.Image, name)
		wants(t, "push", cli.Must(t, "push", name), "1: digest: sha256:")
		cli.Must(t, "rmi", name)
		wants(t, "pull", cli.Must(t, "pull", name), "Status: Downloaded newer image for "+name)
	}
	for want, r := range map[string]*harness.Registry{"unknown authority": unknown, "tls: ": half, "": plain} {
		refused := cli.Run(t, "pull", r.Host+"/some/thing:1")
		wants(t, "pull of "+r.Host, refused.Stderr, want)
		if refused.Status == 0 {
			t.Errorf("%s is pulled from", r.Host)
		}
	}
}

func TestRegistryWithPassword(t *testing.T) {
	registry := harness.NewRegistryWith(t, harness.RegistryOptions{Password: true})
	stack := harness.New(t, harness.Options{})
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) {
		useWithPassword(t, cli.At(t, stack.Host()), registry.Host)
	})
}

// useWithPassword logs in, pushes and pulls; without, it may not push.
func useWithPassword(t *testing.T, cli harness.CLI, host string) {
	name := host + "/some/thing" + strings.ReplaceAll(cli.Version, ".", "")
	cli.Must(t, "tag", harness.Image, name)
	refused := cli.Run(t, "push", name)
	if refused.Status == 0 || !strings.Contains(refused.Stderr, "no basic auth credentials") && !strings.Contains(refused.Stderr, "denied") && !strings.Contains(refused.Stderr, "unauthorized") {
		t.Errorf("push of nobody: %+v", refused)
	}
	wrong := cli.Run(t, "login", "-u", harness.RegistryUser, "-p", "wrong", host)
	if wrong.Status == 0 || !strings.Contains(wrong.Stderr, "401") && !strings.Contains(wrong.Stderr, "nauthorized") {
		t.Errorf("login with a wrong password: %+v", wrong)
	}
	wants(t, "login", cli.Must(t, "login", "-u", harness.RegistryUser, "-p", harness.RegistryPassword, host), "Login Succeeded")
	wants(t, "push", cli.Must(t, "push", name), "latest: digest: sha256:")
	cli.Must(t, "rmi", name)
	wants(t, "pull", cli.Must(t, "pull", name), "Status: Downloaded newer image for "+name)
	cli.Must(t, "rmi", name)
	cli.Must(t, "logout", host)
}

// Tokens are asked for with the rights that are needed, mounting included, and
// anew when a registry says 401 in the middle of a pull.
func TestRegistryWithTokens(t *testing.T) {
	authority := harness.NewAuthority(t, "127.0.0.1")
	issuer := harness.NewIssuer(t, authority)
	registry := harness.NewRegistryWith(t, harness.RegistryOptions{Token: issuer.URL, TokenRoot: filepath.Join(authority.Dir, "ca.crt")})
	var forgotten atomic.Bool // one blob was asked for without the token
	forgotten.Store(true)
	front := httptest.NewServer(forgetful(registry.Host, &forgotten))
	t.Cleanup(front.Close)
	host := strings.TrimPrefix(front.URL, "http://")
	stack := harness.New(t, harness.Options{})
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) {
		cli = cli.At(t, stack.Host())
		useWithPassword(t, cli, host)
		cli.Must(t, "login", "-u", harness.RegistryUser, "-p", harness.RegistryPassword, host)
		version := strings.ReplaceAll(cli.Version, ".", "")
		first, second := host+"/first/"+version, host+"/second/"+version
		cli.Must(t, "tag", harness.Image, first)
		cli.Must(t, "tag", harness.Image, second)
		cli.Must(t, "push", first)
		issuer.Asked()
		wants(t, "push beside it", cli.Must(t, "push", second), "latest: digest: sha256:")
		asked := issuer.Asked()
		for _, scope := range []string{"repository:second/" + version + ":push,pull", "repository:first/" + version + ":pull"} {
			if !slices.Contains(asked, scope) && !slices.Contains(asked, strings.Replace(scope, "push,pull", "pull,push", 1)) {
				t.Errorf("asked for %v, not for %s", asked, scope)
			}
		}
		cli.Must(t, "rmi", "-f", first, second)
		name := host + "/third/" + version
		image := busybox(t, 2)
		putAs(t, name, image)
		forgotten.Store(false)
		wants(t, "pull with a 401 in between", cli.Must(t, "pull", name), "Status: Downloaded newer image for "+name)
		if !forgotten.Load() {
			t.Error("no blob was asked for")
		}
		cli.Must(t, "rmi", name)
	})
}

// forgetful passes requests on, one for a blob without its token.
func forgetful(to string, forgotten *atomic.Bool) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/sha256:") && r.Method == http.MethodGet && forgotten.CompareAndSwap(false, true) {
			r.Header.Del("Authorization")
		}
		proxy.ServeHTTP(w, r)
	})
}

// Any registry can have mirrors; what they have comes from them.
func TestMirrorOfARegistry(t *testing.T) {
	mirror := harness.NewRegistry(t)
	image := busybox(t, 1)
	put(t, mirror.Host+"/some/thing:1", image)
	stack := harness.New(t, harness.Options{NoImage: true, Engined: []string{"--registry-mirror", "registry.example:5000=http://" + mirror.Host}})
	cli := harness.AnyCLI(t).At(t, stack.Host())
	name := "registry.example:5000/some/thing:1"
	wants(t, "pull", cli.Must(t, "pull", name), "Status: Downloaded newer image for "+name)
	if out := cli.Must(t, "run", "--rm", "--network", "none", name, "echo", "from the mirror"); out != "from the mirror\n" {
		t.Errorf("it says %q", out)
	}
}

// What is no image that runs here is refused with what it is.
func TestForeignContentIsRefused(t *testing.T) {
	registry := harness.NewRegistry(t)
	stack := harness.New(t, harness.Options{NoImage: true})
	cli := harness.AnyCLI(t).At(t, stack.Host())
	artifact, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.example.chart.config.v1+json"),
		static.NewLayer([]byte("a chart"), "application/vnd.example.chart.v1"))
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := mutate.AppendLayers(busybox(t, 0), static.NewLayer([]byte("?"), "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, registry.Host+"/artifact", artifact)
	put(t, registry.Host+"/encrypted", encrypted)
	for name, want := range map[string]string{"artifact": "application/vnd.example.chart.config.v1+json", "encrypted": "encrypted"} {
		refused := cli.Run(t, "pull", registry.Host+"/"+name)
		wants(t, name, refused.Stderr, want)
		if refused.Status != 1 {
			t.Errorf("%s: status %d", name, refused.Status)
		}
	}
	index, err := random.Index(100, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	index = mutate.AppendManifests(mutate.RemoveManifests(index, func(_ greg.Descriptor) bool { return true }),
		mutate.IndexAddendum{Add: busybox(t, 0), Descriptor: greg.Descriptor{Platform: &greg.Platform{OS: "linux", Architecture: "s390x"}}})
	ref, err := gname.ParseReference(registry.Host + "/other")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	refused := cli.Run(t, "pull", registry.Host+"/other")
	wants(t, "another platform", refused.Stderr, "no matching manifest for linux/amd64 in the manifest list entries")
	if list := cli.Must(t, "images", "-aq"); list != "" {
		t.Errorf("left: %s", list)
	}
}

// putAs is put with the registries' user.
func putAs(t *testing.T, name string, image greg.Image) {
	t.Helper()
	ref, err := gname.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithAuth(&authn.Basic{Username: harness.RegistryUser, Password: harness.RegistryPassword})); err != nil {
		t.Fatal(err)
	}
}
