package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	gname "github.com/google/go-containerregistry/pkg/name"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/rootfs"
)

// busybox builds an image of busybox below some random layers.
func busybox(t *testing.T, more int) greg.Image {
	t.Helper()
	var tar bytes.Buffer
	if err := rootfs.Tar(&tar); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tar.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	layers := []greg.Layer{layer}
	for range more {
		random, err := random.Layer(200<<10, "application/vnd.docker.image.rootfs.diff.tar.gzip")
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, random)
	}
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.ConfigFile(image, &greg.ConfigFile{OS: "linux", Architecture: "amd64",
		Config: greg.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}}, RootFS: must(t, image).RootFS})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func must(t *testing.T, image greg.Image) *greg.ConfigFile {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// put pushes an image with another client and returns its digest.
func put(t *testing.T, name string, image greg.Image) string {
	t.Helper()
	ref, err := gname.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

func wants(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%s: no %q in:\n%s", what, part, got)
		}
	}
}

// An image is pulled when it is first run, and only then.
func TestPull(t *testing.T) {
	registry := harness.NewRegistry(t)
	name := registry.Host + "/some/busybox"
	image := busybox(t, 2)
	digest := put(t, name+":1", image)
	put(t, name+":2", image)
	stack := harness.New(t, harness.Options{NoImage: true})
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) {
		cli = cli.At(t, stack.Host())
		ran := cli.Run(t, "run", "--rm", "--network", "none", name+":1", "echo", "it runs")
		if ran.Stdout != "it runs\n" || ran.Status != 0 {
			t.Fatalf("%+v", ran)
		}
		wants(t, "run", ran.Stderr, fmt.Sprintf("Unable to find image '%s:1' locally", name), "1: Pulling from some/busybox", "Pull complete",
			"Digest: "+digest, fmt.Sprintf("Status: Downloaded newer image for %s:1", name))
		wants(t, "pull again", cli.Must(t, "pull", name+":1"), "Digest: "+digest, "Status: Image is up to date for "+name+":1")
		wants(t, "pull by digest", cli.Must(t, "pull", name+"@"+digest), "Status: Image is up to date for "+name+"@"+digest)
		wants(t, "pull -a", cli.Must(t, "pull", "-a", name), "1: Pulling from some/busybox", "2: Pulling from some/busybox", "Status: Downloaded newer image for "+name)
		wants(t, "images", cli.Must(t, "images", "--digests"), digest)
		wants(t, "inspect", cli.Must(t, "inspect", "-f", "{{.RepoDigests}} {{.RepoTags}}", name+":2"), name+"@"+digest, name+":1 "+name+":2")
		missing := cli.Run(t, "pull", name+":none")
		wants(t, "missing tag", missing.Stderr, "manifest for "+name+":none not found: manifest unknown: manifest unknown")
		unknown := cli.Run(t, "pull", registry.Host+"/nothing")
		wants(t, "missing repository", unknown.Stderr, "not found")
		if missing.Status != 1 || unknown.Status != 1 {
			t.Errorf("exit statuses %d and %d", missing.Status, unknown.Status)
		}
		cli.Must(t, "rmi", name+":1", name+":2") // the digest goes with the last tag
	})
}

// What was pulled is pushed to another registry with the same digests, to the
// same one without sending it, and pulled again.
func TestPush(t *testing.T) {
	from, to := harness.NewRegistry(t), harness.NewRegistry(t)
	name := from.Host + "/some/busybox:1"
	image := busybox(t, 2)
	digest := put(t, name, image)
	stack := harness.New(t, harness.Options{NoImage: true})
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) {
		cli = cli.At(t, stack.Host())
		cli.Must(t, "pull", name)
		other := to.Host + "/round/trip" + strings.ReplaceAll(cli.Version, ".", "")
		cli.Must(t, "tag", name, other+":2")
		wants(t, "push", cli.Must(t, "push", other+":2"), "The push refers to repository ["+other+"]", "2: digest: "+digest+" size: ")
		same(t, other+":2", image)
		wants(t, "push again", cli.Must(t, "push", other+":2"), "Layer already exists", "2: digest: "+digest)
		third := to.Host + "/third/" + strings.ReplaceAll(cli.Version, ".", "")
		cli.Must(t, "tag", name, third+":3")
		wants(t, "push beside it", cli.Must(t, "push", third+":3"), "Mounted from round/trip", "3: digest: "+digest)
		wants(t, "inspect", cli.Must(t, "inspect", "-f", "{{.RepoDigests}}", name), other+"@"+digest, third+"@"+digest)

		// An image that never was in a registry.
		own := to.Host + "/own" + strings.ReplaceAll(cli.Version, ".", "")
		if made := cli.Shell(t, "tar -c -C / bin/busybox | docker import - "+own); made.Status != 0 {
			t.Fatal(made)
		}
		id := cli.Must(t, "inspect", "-f", "{{.Id}}", own)
		wants(t, "push -a", cli.Must(t, "push", "-a", own), "latest: digest: sha256:")
		cli.Must(t, "rmi", own, name, other+":2", third+":3")
		if out := cli.Run(t, "run", "--rm", "--network", "none", own, "/bin/busybox", "echo", "back").Stdout; out != "back\n" {
			t.Errorf("run after the round trip: %q", out)
		}
		if back := cli.Must(t, "inspect", "-f", "{{.Id}}", own); back != id {
			t.Errorf("id after the round trip: %s, before: %s", back, id)
		}
		cli.Must(t, "rmi", own)
		gone := cli.Run(t, "push", to.Host+"/nothing:here")
		wants(t, "push of nothing", gone.Stderr, "An image does not exist locally with the tag: "+to.Host+"/nothing")
		wants(t, "manifest inspect", cli.Must(t, "manifest", "inspect", "--insecure", other+":2"), "layers")
	})
}

// same compares what a registry has with an image, blob by blob.
func same(t *testing.T, name string, want greg.Image) {
	t.Helper()
	ref, err := gname.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	gotManifest, _ := got.RawManifest()
	wantManifest, _ := want.RawManifest()
	if !bytes.Equal(gotManifest, wantManifest) {
		t.Errorf("manifest\n%s\nwant\n%s", gotManifest, wantManifest)
	}
}
