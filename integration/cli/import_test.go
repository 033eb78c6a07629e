package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/rootfs"
)

// The engine fetches the tar of a URL itself.
func TestImportFromURL(t *testing.T) {
	var tree bytes.Buffer
	if err := rootfs.Tar(&tree); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/tree.tar":
			_, _ = w.Write(tree.Bytes())
		case "/cut.tar": // the connection ends before what was promised
			w.Header().Set("Content-Length", "1000000000")
			_, _ = w.Write(tree.Bytes()[:tree.Len()/2])
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	stack := harness.New(t, harness.Options{NoImage: true})
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) {
		docker := cli.At(t, stack.Host())
		docker.Must(t, "import", "--change", "ENV FROM=afar", "--message", "fetched", server.URL+"/tree.tar", "fetched:1")
		if out := docker.Must(t, "run", "--rm", "fetched:1", "sh", "-c", "echo $FROM"); out != "afar\n" {
			t.Errorf("run: %q", out)
		}
		if out := docker.Must(t, "history", "--format", "{{.Comment}}", "fetched:1"); out != "fetched\n" {
			t.Errorf("history: %q", out)
		}
		docker.Must(t, "rmi", "fetched:1")
		for _, path := range []string{"/none.tar", "/cut.tar"} {
			if result := docker.Run(t, "import", server.URL+path, "bad:1"); result.Status != 1 || result.Stderr == "" {
				t.Errorf("import of %s: %+v", path, result)
			}
		}
		if out := docker.Must(t, "images", "-aq"); strings.TrimSpace(out) != "" {
			t.Errorf("images: %s", out)
		}
	})
}
