package netdevice

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// ownNamespace gives the test's thread a network namespace of its own, and
// returns a descriptor of another one.
func ownNamespace(t *testing.T) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("network namespaces cannot be made here: %v", err)
	}
	other, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	return other
}

func socket(t *testing.T) *netlink {
	t.Helper()
	n, err := newNetlink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

// pair makes a device, and its peer, with one address of each family, up.
func pair(t *testing.T, n *netlink, name string) device {
	t.Helper()
	info := encode(0, 0, 0, nil, []attribute{text(unix.IFLA_INFO_KIND, "veth")})[unix.NLMSG_HDRLEN:]
	if _, err := n.ask(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, link(0, 0, 0), text(unix.IFLA_IFNAME, name), attribute{unix.IFLA_LINKINFO, info}); err != nil {
		t.Skipf("the kernel makes no veth pair: %v", err)
	}
	d, err := n.find(name)
	if err != nil {
		t.Fatal(err)
	}
	four, six := []byte{10, 11, 12, 13}, append([]byte{0xfd}, append(make([]byte, 14), 7)...)
	addresses := []address{
		{family: unix.AF_INET, prefix: 24, attributes: map[uint16][]byte{unix.IFA_LOCAL: four, unix.IFA_ADDRESS: four}},
		{family: unix.AF_INET6, prefix: 64, flags: unix.IFA_F_NODAD, attributes: map[uint16][]byte{unix.IFA_ADDRESS: six}},
	}
	if err := n.bringUp(d.index, addresses); err != nil {
		t.Fatal(err)
	}
	return d
}

// wantDevice checks that the device is there, up, with both addresses.
func wantDevice(t *testing.T, n *netlink, name string) {
	t.Helper()
	d, err := n.find(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if d.flags&unix.IFF_UP == 0 {
		t.Errorf("%s is down", name)
	}
	addresses, err := n.addresses(d.index)
	if err != nil || len(addresses) != 2 {
		t.Errorf("%s has %d addresses, want 2 (%v)", name, len(addresses), err)
	}
}

func wantNoDevice(t *testing.T, n *netlink, name string) {
	t.Helper()
	if _, err := n.find(name); errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("%s is there, or: %v", name, err)
	}
}

func TestDevicesMoveWithTheirAddresses(t *testing.T) {
	other := ownNamespace(t)
	host := socket(t)
	pair(t, host, "one")
	pair(t, host, "two")
	inside, err := newNetlinkIn(other)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.close()
	m, err := Move(other, map[string]specs.LinuxNetDevice{"one": {}, "two": {Name: "eth%d"}})
	if err != nil {
		t.Fatal(err)
	}
	wantDevice(t, inside, "one")
	wantDevice(t, inside, "eth0")
	wantNoDevice(t, host, "one")
	wantNoDevice(t, host, "two")
	m.Keep()
	if err := m.Back(); err != nil { // does nothing any more
		t.Error(err)
	}
	wantDevice(t, inside, "eth0")
}

func TestDevicesComeBack(t *testing.T) {
	other := ownNamespace(t)
	host := socket(t)
	pair(t, host, "one")
	pair(t, host, "two")
	m, err := Move(other, map[string]specs.LinuxNetDevice{"one": {Name: "eth0"}, "two": {}})
	if err != nil {
		t.Fatal(err)
	}
	wantNoDevice(t, host, "one")
	if err := m.Back(); err != nil {
		t.Fatal(err)
	}
	wantDevice(t, host, "one")
	wantDevice(t, host, "two")
}

// The second device fails, so the first is brought back.
func TestAFailureBringsBackWhatMoved(t *testing.T) {
	other := ownNamespace(t)
	host := socket(t)
	pair(t, host, "one")
	if _, err := Move(other, map[string]specs.LinuxNetDevice{"one": {Name: "eth0"}, "two": {}}); err == nil || !strings.Contains(err.Error(), `linux.netDevices.two`) {
		t.Errorf("got %v", err)
	}
	wantDevice(t, host, "one")
}

func TestATakenNameIsRefused(t *testing.T) {
	other := ownNamespace(t)
	host := socket(t)
	pair(t, host, "one")
	_, err := Move(other, map[string]specs.LinuxNetDevice{"one": {Name: "lo"}})
	if errdefs.KindOf(err) != errdefs.AlreadyExists {
		t.Errorf("got %v", err)
	}
	wantDevice(t, host, "one")
}

func TestNamesAreChecked(t *testing.T) {
	for name, bad := range map[string]map[string]specs.LinuxNetDevice{
		"slash": {"a/b": {}}, "empty": {"": {}}, "long": {"eth0": {Name: "sixteen-letters-"}},
		"twice": {"a": {Name: "x"}, "b": {Name: "x"}}, "template": {"a": {Name: "%s"}}, "templates": {"a": {Name: "%d%d"}}, "from": {"eth%d": {}},
	} {
		if err := Check(bad); errdefs.CodeOf(err) != errdefs.SpecInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Check(map[string]specs.LinuxNetDevice{"a": {Name: "eth%d"}, "b": {Name: "eth%d"}, "c": {}}); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(unix.RTM_NEWLINK, 0, 1, link(3, 1, 1), []attribute{text(unix.IFLA_IFNAME, "eth0"), number(unix.IFLA_MTU, 1500)}))
	short := encode(unix.RTM_NEWADDR, 0, 1, nil, nil)
	binary.NativeEndian.PutUint32(short, 3)
	f.Add(short)
	f.Fuzz(func(t *testing.T, datagram []byte) {
		list, err := decode(datagram)
		if err != nil {
			var classified *errdefs.Error
			if !errors.As(err, &classified) {
				t.Errorf("unclassified: %v", err)
			}
			return
		}
		for _, d := range parseDevices(list) {
			if strings.HasSuffix(d.name, "\x00") {
				t.Errorf("%q", d.name)
			}
		}
	})
}
