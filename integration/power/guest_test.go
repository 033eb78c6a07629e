package power

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/images"
)

var task = flag.String("task", "", "look: only look whether all is whole")

// TestInTheMachine is the guest's part: it looks at what the cut has left, says
// that it is up, and then pulls and removes until the power goes.
func TestInTheMachine(t *testing.T) {
	dir := os.Getenv(guestEnv)
	if dir == "" {
		t.Skip("only in the machine that TestPowerCuts boots")
	}
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", filepath.Join(dir, "disk.img"), disk).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", disk).Run() })
	registry := harness.RegistryOf(t, filepath.Join(dir, "registry"))
	stack := harness.New(t, harness.Options{NoImage: true, DataRoot: filepath.Join(disk, "data")})
	g := &guest{t: t, client: stack.Client(t), log: filepath.Join(dir, "log.txt")}
	g.look()
	if *task == "look" {
		return
	}
	g.say(firstLine)
	for {
		g.turn(image(rand.IntN(names)), registry.Host)
	}
}

type guest struct {
	t      *testing.T
	client *client.Client
	log    string
}

// say writes a line through to the host: the power may go at any time.
func (g *guest) say(line string) {
	g.t.Helper()
	file, err := os.OpenFile(g.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY|os.O_SYNC, 0o644)
	must(g.t, err)
	defer file.Close()
	_, err = fmt.Fprintln(file, line)
	must(g.t, err)
	must(g.t, file.Sync())
}

// look requires that all images that were reported done are there, and that
// every image that is there is whole.
func (g *guest) look() {
	g.t.Helper()
	there := map[string]bool{}
	list, err := g.client.ImageList(context.Background(), client.ImageListOptions{All: true})
	must(g.t, err)
	for _, found := range list.Items {
		must(g.t, images.Whole(context.Background(), g.client, found.ID))
		for _, tag := range found.RepoTags {
			_, name, _ := strings.Cut(tag, "/") // the port changes
			there[name] = true
		}
	}
	for name := range g.reported() {
		if !there[name] {
			g.t.Errorf("%s was reported done and is not there", name)
		}
	}
	if g.t.Failed() {
		g.t.FailNow()
	}
}

// reported are the images of which the last word is that they are done.
func (g *guest) reported() map[string]bool {
	done := map[string]bool{}
	for _, line := range linesOf(g.log) {
		switch verb, name, _ := strings.Cut(line, " "); verb {
		case "done":
			done[name] = true
		case "removing":
			delete(done, name)
		}
	}
	return done
}

// turn pulls an image, or removes it if it is there.
func (g *guest) turn(name, host string) {
	g.t.Helper()
	ctx := context.Background()
	if !g.reported()[name] {
		g.say("pulling " + name)
		stream, err := g.client.ImagePull(ctx, host+"/"+name, client.ImagePullOptions{})
		must(g.t, err)
		must(g.t, stream.Wait(ctx))
		g.say("done " + name)
		return
	}
	g.say("removing " + name)
	list, err := g.client.ImageList(ctx, client.ImageListOptions{})
	must(g.t, err)
	for _, found := range list.Items {
		for _, tag := range found.RepoTags {
			if strings.HasSuffix(tag, "/"+name) {
				_, err := g.client.ImageRemove(ctx, found.ID, client.ImageRemoveOptions{Force: true, PruneChildren: true})
				must(g.t, err)
			}
		}
	}
}
