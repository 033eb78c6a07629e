package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/engined/engined/integration/harness"
)

// front is a server before a registry; before may answer a request itself.
func front(t *testing.T, registry *harness.Registry, before func(w http.ResponseWriter, r *http.Request) (answered bool)) string {
	t.Helper()
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: registry.Host})
		r.Out.Host = r.In.Host // uploads go on at the front
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !before(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// A pull whose engined is killed is no hindrance to the next, which fetches
// what is missing.
func TestPullAfterKill(t *testing.T) {
	cli := harness.AnyCLI(t)
	registry := harness.NewRegistry(t)
	image := busybox(t, 0)
	put(t, registry.Host+"/busybox:1", image)
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := layers[0].Digest()
	size, _ := layers[0].Size()
	var killed atomic.Bool
	var asked atomic.Pointer[string]
	half := make(chan struct{})
	host := front(t, registry, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.String()) {
			return false
		}
		if killed.Load() {
			from := r.Header.Get("Range")
			asked.Store(&from)
			return false
		}
		content, err := layers[0].Compressed()
		if err != nil {
			t.Error(err)
			return true
		}
		defer content.Close()
		_, _ = io.CopyN(w, content, size/2)
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-r.Context().Done() // until engined dies
		return true
	})
	stack := harness.New(t, harness.Options{NoImage: true})
	cli = cli.At(t, stack.Host())
	pulling := make(chan harness.Result, 1)
	go func() { pulling <- cli.Run(t, "pull", host+"/busybox:1") }()
	<-half
	stack.Engined.Kill()
	if result := <-pulling; result.Status == 0 {
		t.Errorf("the pull went well without an engine: %+v", result)
	}
	killed.Store(true)
	stack.StartEngined()
	if out := cli.Must(t, "images", "-aq"); out != "" {
		t.Errorf("an image after half a pull: %s", out)
	}
	if result := cli.Run(t, "run", "--rm", "--network", "none", host+"/busybox:1", "echo", "whole"); result.Stdout != "whole\n" {
		t.Errorf("%+v", result)
	}
	if from := asked.Load(); from == nil || *from == "" || *from == "bytes=0-" {
		t.Logf("the layer was fetched from its beginning: nothing of it had reached the disk")
	}
}

// A registry that wants a password gets it from docker login, and says no to
// others in the words of dockerd.
func TestLogin(t *testing.T) {
	registry := harness.NewRegistry(t)
	put(t, registry.Host+"/private:1", busybox(t, 0))
	host := front(t, registry, func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == "me" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return true
	})
	stack := harness.New(t, harness.Options{NoImage: true})
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) {
		cli = cli.At(t, stack.Host())
		refused := cli.Run(t, "pull", host+"/private:1")
		wants(t, "pull without login", refused.Stderr, "no basic auth credentials")
		wrong := cli.Shell(t, "echo wrong | docker login -u me --password-stdin "+host)
		wants(t, "login with a wrong password", wrong.Stderr, "401 Unauthorized")
		if refused.Status == 0 || wrong.Status == 0 {
			t.Errorf("exit statuses %d and %d", refused.Status, wrong.Status)
		}
		if right := cli.Shell(t, "echo secret | docker login -u me --password-stdin "+host); right.Status != 0 || !strings.Contains(right.Stdout, "Login Succeeded") {
			t.Fatalf("login: %+v", right)
		}
		cli.Must(t, "pull", host+"/private:1")
		cli.Must(t, "tag", host+"/private:1", host+"/mine:2")
		wants(t, "push", cli.Must(t, "push", host+"/mine:2"), "2: digest: sha256:")
		cli.Must(t, "rmi", host+"/private:1", host+"/mine:2")
	})
}

// The client that is built in pulls what it is told to run.
func TestBuiltInPull(t *testing.T) {
	registry := harness.NewRegistry(t)
	name := registry.Host + "/busybox:1"
	put(t, name, busybox(t, 1))
	stack := harness.New(t, harness.Options{NoImage: true})
	cli := harness.BuiltIn().At(t, stack.Host())
	if result := cli.Run(t, "run", "--rm", "--net", "none", name, "echo", "hello"); result.Stdout != "hello\n" {
		t.Errorf("%+v", result)
	}
	wants(t, "pull", cli.Must(t, "pull", name), "Status: Image is up to date for "+name)
	wants(t, "push", cli.Must(t, "push", name), "Layer already exists")
}
