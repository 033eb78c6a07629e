package network

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

func TestNextAddressGoesRoundAndSkipsWhatIsTaken(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.1/29") // hosts .1-.6, .1 is the bridge's
	taken := map[netip.Addr]bool{}
	var last netip.Addr
	var given []string
	for range 5 {
		next, err := nextAddress(subnet, last, taken)
		if err != nil {
			t.Fatal(err)
		}
		taken[next], last = true, next
		given = append(given, next.String())
	}
	if got := strings.Join(given, " "); got != "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6" {
		t.Errorf("gave %s", got)
	}
	if _, err := nextAddress(subnet, last, taken); errdefs.KindOf(err) != errdefs.ResourceExhausted {
		t.Errorf("a full subnet gave %v", err)
	}
	delete(taken, netip.MustParseAddr("10.0.0.3"))
	if next, _ := nextAddress(subnet, last, taken); next.String() != "10.0.0.3" {
		t.Errorf("after .6 came %s, want the freed .3", next)
	}
}

func TestAskedAddressMustBeAFreeHostAddress(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.1/24")
	taken := map[netip.Addr]bool{netip.MustParseAddr("10.0.0.9"): true}
	for addr, want := range map[string]errdefs.Kind{
		"10.0.0.5":   errdefs.Unknown,
		"10.0.0.9":   errdefs.PermissionDenied,
		"10.0.0.1":   errdefs.InvalidArgument,
		"10.0.0.0":   errdefs.InvalidArgument,
		"10.0.0.255": errdefs.InvalidArgument,
		"10.0.1.5":   errdefs.InvalidArgument,
		"fe80::1":    errdefs.InvalidArgument,
	} {
		asked := &apinetwork.EndpointSettings{IPAMConfig: &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(addr)}}
		_, _, err := choose(subnet, asked, netip.Addr{}, taken)
		if errdefs.KindOf(err) != want || (err == nil) != (want == errdefs.Unknown) {
			t.Errorf("%s: %v, want kind %q", addr, err, want)
		}
	}
}

func TestHostsNamesTheContainerAndTheExtras(t *testing.T) {
	req := Request{Hostname: "web", Domainname: "example.org", ExtraHosts: []string{"db:10.1.1.1", "v6:[2001:db8::1]", "gate=host-gateway"}}
	got, err := hosts(req, netip.MustParseAddr("172.18.0.2"), false, netip.MustParseAddr("172.18.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	want := loopbackHosts + "172.18.0.2\tweb.example.org web\n10.1.1.1\tdb\n2001:db8::1\tv6\n172.18.0.1\tgate\n"
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for _, bad := range []string{"", "db", "db:", ":10.1.1.1", "db:10.1.1", "d b:10.1.1.1", "a\nb:10.1.1.1"} {
		if _, err := hosts(Request{ExtraHosts: []string{bad}}, netip.Addr{}, false, netip.Addr{}); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("extra host %q: %v", bad, err)
		}
	}
}

func TestResolvConfFollowsTheHostUnlessToldOtherwise(t *testing.T) {
	host := "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch example.org\noptions edns0\n"
	for name, c := range map[string]struct {
		req  Request
		host bool
		want string
	}{
		"own namespace drops loopback servers": {want: "nameserver 192.0.2.1\nsearch example.org\noptions edns0\n"},
		"host namespace keeps them":            {host: true, want: "nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch example.org\noptions edns0\n"},
		"--dns replaces servers":               {req: Request{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}, want: "search example.org\noptions edns0\nnameserver 192.0.2.7\n"},
		"--dns-search . empties the list":      {req: Request{DNSSearch: []string{"."}}, want: "nameserver 192.0.2.1\noptions edns0\n"},
		"--dns-option replaces options":        {req: Request{DNSOptions: []string{"ndots:2"}}, want: "nameserver 192.0.2.1\nsearch example.org\noptions ndots:2\n"},
	} {
		if got := string(editResolv([]byte(host), c.req, c.host)); got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, c.want)
		}
	}
}

func TestRulesOfABridge(t *testing.T) {
	var lines []string
	for _, r := range rules("engined0", netip.MustParsePrefix("172.18.0.1/16")) {
		lines = append(lines, fmt.Sprintf("%s from=%s in=%s out=%s established=%v %s", r.chain, r.from, r.in, r.out, r.established, r.verdict))
		if len(r.exprs()) == 0 {
			t.Errorf("no expressions for %+v", r)
		}
	}
	want := "postrouting from=172.18.0.0/16 in= out=!engined0 established=false masquerade\n" +
		"forward from=invalid Prefix in=!engined0 out=engined0 established=true accept\n" +
		"forward from=invalid Prefix in=!engined0 out=engined0 established=false drop"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, bad := range []Options{
		{Bridge: "a-name-that-is-too-long"},
		{Bridge: "a/b"},
		{Subnet: netip.MustParsePrefix("10.0.0.0/24")},
		{Subnet: netip.MustParsePrefix("10.0.0.1/30")},
		{Subnet: netip.MustParsePrefix("fd00::1/64")},
	} {
		if err := bad.complete(); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	var empty Options
	if err := empty.complete(); err != nil || empty.Bridge != DefaultBridge || empty.Subnet.IsValid() {
		t.Errorf("defaults: %+v, %v", empty, err)
	}
}
