package cli

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/engined/engined/integration/harness"
)

// The proxies that engined's environment names are asked for registries, and for
// what is imported from a URL.
func TestPullThroughAProxy(t *testing.T) {
	registry := harness.NewRegistry(t)
	put(t, registry.Host+"/some/thing:1", busybox(t, 1))
	var asked atomic.Int64
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry.Host})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect || r.URL.Host != "registry.example:5000" { // there is no TLS behind it
			http.Error(w, "", http.StatusBadGateway)
			return
		}
		asked.Add(1)
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, proxy.URL)
		t.Setenv(strings.ToLower(name), "")
	}
	t.Setenv("NO_PROXY", "")
	t.Setenv("no_proxy", "")
	stack := harness.New(t, harness.Options{NoImage: true, Engined: []string{"--insecure-registry", "registry.example:5000"}})
	cli := harness.AnyCLI(t).At(t, stack.Host())
	name := "registry.example:5000/some/thing:1"
	wants(t, "pull", cli.Must(t, "pull", name), "Status: Downloaded newer image for "+name)
	if asked.Load() == 0 {
		t.Error("the proxy was not asked")
	}
	refused := cli.Run(t, "import", "http://elsewhere.example/tree.tar")
	wants(t, "import", refused.Stderr, "502 Bad Gateway")
}
