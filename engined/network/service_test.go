package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

// open starts a Service in a network namespace of the test's own: the bridge,
// the rules and the forwarding switch are the namespace's.
func open(t *testing.T, root string) *Service {
	t.Helper()
	return openWith(t, root, Options{Subnet: netip.MustParsePrefix("10.77.0.1/24")})
}

func openWith(t *testing.T, root string, options Options) *Service {
	t.Helper()
	options.ExecRoot, options.Bridge = root, "netest0"
	db, err := store.Open(context.Background(), filepath.Join(root, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, err := Open(context.Background(), db, events.New(), options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ownNamespace reports whether the test is in a network namespace of its own.
// If not, it has run it in one and the caller must return.
func ownNamespace(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	if os.Getenv("ENGINED_NETWORK_TEST") == t.Name() {
		return true
	}
	command := exec.Command("unshare", "--net", "--mount", "--propagation", "private", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	command.Env = append(os.Environ(), "ENGINED_NETWORK_TEST="+t.Name())
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Fatalf("did not run:\n%s", output)
	}
	return false
}

func request(id string) Request {
	return Request{ContainerID: id, ContainerName: "name-" + id, Hostname: id, Mode: "bridge"}
}

func inside(t *testing.T, box Sandbox, command ...string) string {
	t.Helper()
	output, err := exec.Command("nsenter", append([]string{"--net=" + box.Path}, command...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v\n%s", command, err, output)
	}
	return string(output)
}

func TestTwoContainersReachEachOtherAndTheBridge(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	s := open(t, t.TempDir())
	one, err := s.Allocate(ctx, request("one"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Allocate(ctx, request("two"))
	if err != nil {
		t.Fatal(err)
	}
	if got := one.Endpoints["bridge"].IPAddress.String(); got != "10.77.0.2" {
		t.Errorf("first address %s", got)
	}
	for _, peer := range []string{"10.77.0.1", two.Endpoints["bridge"].IPAddress.String(), "127.0.0.1"} {
		inside(t, one, "busybox", "ping", "-c", "1", "-W", "5", peer)
	}
	if routes := inside(t, one, "ip", "route"); !strings.Contains(routes, "default via 10.77.0.1 dev eth0") {
		t.Errorf("routes: %s", routes)
	}
	inspected, err := s.Inspect(ctx, "bridge")
	if err != nil || len(inspected.Containers) != 2 || inspected.Containers["two"].Name != "name-two" {
		t.Errorf("inspect: %+v %v", inspected, err)
	}
	for _, id := range []string{"one", "two"} {
		if err := s.Release(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s)
}

// nothingLeft checks that lo is the only link and no sandbox file is there.
func nothingLeft(t *testing.T, s *Service) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if kind := link.Type(); kind == "veth" || kind == "bridge" {
			t.Errorf("link %s is left", link.Attrs().Name)
		}
	}
	files, err := os.ReadDir(s.sandboxDir())
	if err != nil || len(files) > 0 {
		t.Errorf("sandboxes left: %v %v", files, err)
	}
	if output, err := exec.Command("nft", "list", "tables").Output(); err != nil || len(output) > 0 {
		t.Errorf("tables left: %s %v", output, err)
	}
}

func TestMasqueradeAndNoWayInFromOutside(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	s := open(t, t.TempDir())
	box, err := s.Allocate(ctx, request("c"))
	if err != nil {
		t.Fatal(err)
	}
	// A neighbour of the host, in a namespace behind a veth pair of its own,
	// which has no route back to the containers' subnet but through the host.
	for _, command := range []string{
		"ip link add outer type veth peer name inner",
		"ip addr add 192.0.2.1/24 dev outer", "ip link set outer up",
		"unshare --net=" + filepath.Join(s.options.ExecRoot, "out") + " ip link set lo up",
	} {
		words := strings.Fields(command)
		if words[0] == "unshare" {
			if err := os.WriteFile(filepath.Join(s.options.ExecRoot, "out"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if output, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, output)
		}
	}
	out := Sandbox{Path: filepath.Join(s.options.ExecRoot, "out")}
	defer func() { _ = removeNamespace(out.Path) }()
	move := exec.Command("ip", "link", "set", "inner", "netns", out.Path)
	if output, err := move.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	inside(t, out, "ip", "addr", "add", "192.0.2.2/24", "dev", "inner")
	inside(t, out, "ip", "link", "set", "inner", "up")

	inside(t, box, "busybox", "ping", "-c", "1", "-W", "5", "192.0.2.2") // answered, so masqueraded

	inside(t, out, "ip", "route", "add", "10.77.0.0/24", "via", "192.0.2.1")
	refused := exec.Command("nsenter", "--net="+out.Path, "busybox", "ping", "-c", "1", "-W", "1", box.Endpoints["bridge"].IPAddress.String())
	if refused.Run() == nil {
		t.Error("the container can be reached from outside")
	}
	if err := s.Release(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestFailedAllocateLeavesNothing(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	s := open(t, t.TempDir())
	if err := removeLink("netest0"); err != nil { // so that connect fails
		t.Fatal(err)
	}
	if _, err := s.Allocate(ctx, request("c")); err == nil {
		t.Fatal("connected without a bridge")
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s)
	if left, err := s.endpoints(ctx, ""); err != nil || len(left) > 0 {
		t.Errorf("rows left: %v %v", left, err)
	}
}

func TestRestartKeepsRunningContainersAndReleasesTheRest(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	root := t.TempDir()
	first := open(t, root)
	for _, id := range []string{"stays", "goes"} {
		if _, err := first.Allocate(ctx, request(id)); err != nil {
			t.Fatal(err)
		}
	}
	first.stop() // a kill: nothing is cleaned
	<-first.stopped

	second := open(t, root)
	if err := second.Reconcile(ctx, map[string]bool{"stays": true}); err != nil {
		t.Fatal(err)
	}
	second.sweepOnce(ctx)
	left, err := second.endpoints(ctx, "")
	if err != nil || len(left) != 1 || left[0].container != "stays" {
		t.Fatalf("endpoints: %v %v", left, err)
	}
	if err := second.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName("netest0"); err != nil {
		t.Errorf("the bridge of a running container: %v", err)
	}
	if err := second.Release(ctx, "stays"); err != nil {
		t.Fatal(err)
	}
	second.sweepOnce(ctx)
	if err := second.closeBridge(); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, second)
}

// shell runs commands of ip(8) and the like, a line each.
func shell(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		words := strings.Fields(command)
		if output, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, output)
		}
	}
}

func TestABridgeOfSomebodyElseStays(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	shell(t, "ip link add netest0 type bridge", "ip addr add 10.78.0.9/24 dev netest0 valid_lft 5000 preferred_lft 4000")
	root := t.TempDir()
	first := openWith(t, root, Options{})
	box, err := first.Allocate(ctx, request("c"))
	if err != nil {
		t.Fatal(err)
	}
	if end := box.Endpoints["bridge"]; end.IPAddress.String() != "10.78.0.1" || end.Gateway.String() != "10.78.0.9" || end.IPPrefixLen != 24 {
		t.Errorf("endpoint %+v, want the bridge's own subnet", end)
	}
	inside(t, box, "busybox", "ping", "-c", "1", "-W", "5", "10.78.0.9")
	if err := first.Release(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	first.stop() // a kill: nothing is cleaned
	<-first.stopped
	if err := openWith(t, root, Options{}).Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := openWith(t, t.TempDir(), Options{}).Close(ctx); err != nil { // of another database
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("netest0")
	if err != nil {
		t.Fatalf("the bridge: %v", err)
	}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addresses) != 1 || addresses[0].IPNet.String() != "10.78.0.9/24" || addresses[0].ValidLft > 5000 {
		t.Errorf("its addresses: %v %v", addresses, err)
	}
}

func TestAConfiguredSubnetGoesBeforeTheBridgesOwn(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	shell(t, "ip link add netest0 type bridge", "ip addr add 10.78.0.9/24 dev netest0")
	s := open(t, t.TempDir())
	box, err := s.Allocate(ctx, request("c"))
	if err != nil {
		t.Fatal(err)
	}
	if got := box.Endpoints["bridge"].IPAddress.String(); got != "10.77.0.2" {
		t.Errorf("address %s", got)
	}
	if err := errors.Join(s.Release(ctx, "c"), s.Close(ctx)); err != nil {
		t.Fatal(err)
	}
}

func TestABridgeWithoutRoomIsRefused(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	shell(t, "ip link add netest0 type bridge", "ip addr add 10.78.0.9/32 dev netest0")
	root := t.TempDir()
	db, err := store.Open(ctx, filepath.Join(root, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = Open(ctx, db, events.New(), Options{ExecRoot: root, Bridge: "netest0"})
	if errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), "bridge netest0: 10.78.0.9/32") {
		t.Errorf("got %v", err)
	}
	if _, err := netlink.LinkByName("netest0"); err != nil {
		t.Errorf("the bridge: %v", err)
	}
}

func TestItsOwnBridgeGoesAlsoAfterAKill(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	root := t.TempDir()
	first := openWith(t, root, Options{})
	first.stop() // a kill: nothing is cleaned
	<-first.stopped
	second := openWith(t, root, Options{})
	if got := second.options.Subnet; got != DefaultSubnet {
		t.Errorf("subnet %s", got)
	}
	if err := second.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, second)
}

func TestManyAllocatesAtOnceGetDifferentAddresses(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	s := open(t, t.TempDir())
	results := make(chan string)
	const count = 20
	for i := range count {
		go func() {
			box, err := s.Allocate(ctx, request(fmt.Sprint("c", i)))
			if err != nil {
				results <- err.Error()
				return
			}
			results <- box.Endpoints["bridge"].IPAddress.String()
		}()
	}
	seen := map[string]bool{}
	for range count {
		result := <-results
		if seen[result] || !strings.HasPrefix(result, "10.77.0.") {
			t.Errorf("got %s", result)
		}
		seen[result] = true
	}
	for i := range count {
		if err := s.Release(ctx, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s)
}

func TestCreateIsToldOfWhatStartWouldRefuse(t *testing.T) {
	s := &Service{options: Options{Bridge: "x"}, records: []record{{id: "ab12", name: "bridge", driver: "bridge"}, {id: "cd34", name: "none", driver: "null"}}}
	for name, c := range map[string]struct {
		mode      apicontainer.NetworkMode
		endpoints map[string]*apinetwork.EndpointSettings
		want      errdefs.Kind
	}{
		"default":                 {"default", map[string]*apinetwork.EndpointSettings{"bridge": {}}, errdefs.Unknown},
		"by id":                   {"ab12", map[string]*apinetwork.EndpointSettings{"bridge": nil}, errdefs.Unknown},
		"unknown is start's":      {"nosuch", map[string]*apinetwork.EndpointSettings{"nosuch": {}}, errdefs.Unknown},
		"another container's":     {"container:x", nil, errdefs.Unknown},
		"a second network":        {"bridge", map[string]*apinetwork.EndpointSettings{"none": {}}, errdefs.NotImplemented},
		"aliases are not ignored": {"bridge", map[string]*apinetwork.EndpointSettings{"bridge": {Aliases: []string{"db"}}}, errdefs.NotImplemented},
	} {
		if err := s.Check(c.mode, c.endpoints); errdefs.KindOf(err) != c.want || (err == nil) != (c.want == errdefs.Unknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Allocate(context.Background(), Request{Mode: "nosuch"}); errdefs.CodeOf(err) != errdefs.NoSuchNetwork {
		t.Errorf("start: %v", err)
	}
	s.options.Bridge = NoBridge
	if s.Default() != "none" {
		t.Errorf("without a bridge the default is %s", s.Default())
	}
}
