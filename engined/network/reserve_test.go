package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

// openUnswept opens a Service whose sweeper has ended, as if it were busy all
// the time.
func openUnswept(t *testing.T, subnet string) *Service {
	t.Helper()
	s := openWith(t, t.TempDir(), Options{Subnet: netip.MustParsePrefix(subnet)})
	s.stop()
	<-s.stopped
	return s
}

// fixed is a request for that address.
func fixed(id, address string) Request {
	r := request(id)
	r.Endpoints = map[string]*apinetwork.EndpointSettings{"bridge": {
		IPAMConfig: &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(address)}}}
	return r
}

func TestAnAddressCanBeHadAsSoonAsItIsReleased(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	s := openUnswept(t, "10.77.0.1/24")
	for range 2 { // a start and a restart
		box, err := s.Allocate(ctx, fixed("c", "10.77.0.50"))
		if err != nil {
			t.Fatal(err)
		}
		inside(t, box, "busybox", "ping", "-c", "1", "-W", "5", "10.77.0.1")
		if err := s.Release(ctx, "c"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Allocate(ctx, fixed("other", "10.77.0.50")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Allocate(ctx, fixed("c", "10.77.0.50")); errdefs.KindOf(err) != errdefs.PermissionDenied {
		t.Errorf("a running container's address: %v", err)
	}
	if err := errors.Join(s.Release(ctx, "other"), s.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s)
}

func TestANetworkIsAskedByAnyOfItsNames(t *testing.T) {
	s := &Service{options: Options{Bridge: "x"}, records: []record{{id: "ab12", name: "bridge"}, {id: "cd34", name: "none"}}}
	asked := &apinetwork.EndpointSettings{GwPriority: 7}
	for _, name := range []string{"bridge", "default", "ab12", "ab"} {
		endpoints := map[string]*apinetwork.EndpointSettings{name: asked, "none": {}}
		if got := s.askedOf(s.records[0], endpoints); got != asked {
			t.Errorf("by %s: %v", name, got)
		}
	}
	if got := s.askedOf(s.records[0], map[string]*apinetwork.EndpointSettings{"none": asked, "bridge": nil}); got != nil {
		t.Errorf("of another: %v", got)
	}
}

func TestAFullSubnetHasRoomForWhatWasReleased(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	s := openUnswept(t, "10.77.0.1/29") // five addresses besides the bridge's
	for i := range 5 {
		if _, err := s.Allocate(ctx, request(fmt.Sprint("c", i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Allocate(ctx, request("more")); errdefs.KindOf(err) != errdefs.ResourceExhausted {
		t.Errorf("a full subnet: %v", err)
	}
	if err := s.Release(ctx, "c2"); err != nil {
		t.Fatal(err)
	}
	box, err := s.Allocate(ctx, request("c2"))
	if err != nil || box.Endpoints["bridge"].IPAddress.String() != "10.77.0.4" {
		t.Errorf("got %+v, %v, want the released 10.77.0.4", box.Endpoints["bridge"], err)
	}
	for i := range 5 {
		if err := s.Release(ctx, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s)
}

func TestAnAddressWhoseNamespaceCannotBeRemovedStaysTaken(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	s := openUnswept(t, "10.77.0.1/24")
	box, err := s.Allocate(ctx, fixed("c", "10.77.0.50"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Release(ctx, "c"), removeNamespace(box.Path), os.MkdirAll(filepath.Join(box.Path, "full"), 0o700)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Allocate(ctx, fixed("c", "10.77.0.50"))
	if errdefs.KindOf(err) != errdefs.PermissionDenied || !strings.Contains(err.Error(), box.Path) {
		t.Errorf("got %v, want an error that names %s", err, box.Path)
	}
	if err := os.RemoveAll(box.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Allocate(ctx, fixed("c", "10.77.0.50")); err != nil {
		t.Errorf("after that: %v", err)
	}
	if err := errors.Join(s.Release(ctx, "c"), s.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s)
}

func TestRestartsInAFullSubnetBesideTheSweeper(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	ctx := context.Background()
	s := openWith(t, t.TempDir(), Options{Subnet: netip.MustParsePrefix("10.77.0.1/29")})
	for _, asking := range []func(i int) Request{
		func(i int) Request { return fixed(fmt.Sprint("c", i), fmt.Sprint("10.77.0.", 2+i)) },
		func(i int) Request { return request(fmt.Sprint("c", i)) },
	} {
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				for range 5 {
					if _, err := s.Allocate(ctx, asking(i)); err != nil {
						t.Errorf("c%d: %v", i, err)
					}
					if err := s.Release(ctx, fmt.Sprint("c", i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s)
}
