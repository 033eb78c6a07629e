package netdevice

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// device is what a link answer says.
type device struct {
	index int32
	flags uint32
	name  string
}

// address of a device, as the kernel describes it.
type address struct {
	family, prefix, scope uint8
	flags                 uint32
	attributes            map[uint16][]byte
}

// Moved is what came into a container, with what it takes to bring it back.
type Moved struct {
	namespace  int // the container's; it lives as long as the descriptor
	own        int // the runtime's
	inside, at *netlink
	undo       errdefs.Undo
}

// Check finds what is wrong with the names.
func Check(devices map[string]specs.LinuxNetDevice) error {
	taken := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		field := "linux.netDevices." + name
		for _, n := range []string{name, target(name, devices[name])} {
			if !validName(n) {
				return invalid(field, "expected a device name of 1 to 15 characters without / and white space, got %q", n)
			}
		}
		inside := target(name, devices[name])
		if strings.Contains(name, "%") || strings.Count(inside, "%") != strings.Count(inside, "%d") || strings.Count(inside, "%") > 1 {
			return invalid(field, "expected %%d at most once in the name, got %q", inside)
		}
		if other, twice := taken[inside]; twice && !strings.Contains(inside, "%") {
			return invalid(field, "%s gets the name %q, too", other, inside)
		}
		taken[inside] = name
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, field, "invalid spec: %s: %w", field, fmt.Errorf(format, args...))
}

// validName is the kernel's dev_valid_name.
func validName(name string) bool {
	return name != "" && len(name) < unix.IFNAMSIZ && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r\x00")
}

func target(name string, d specs.LinuxNetDevice) string {
	if d.Name != "" {
		return d.Name
	}
	return name
}

// Move brings the devices into the namespace of the descriptor, which it
// takes over. Keep or Back ends it; a failure has brought back what it moved.
func Move(namespace int, devices map[string]specs.LinuxNetDevice) (_ *Moved, err error) {
	m := &Moved{namespace: namespace, own: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Back())
		}
	}()
	if m.own, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, err
	}
	if m.at, err = newNetlink(); err != nil {
		return nil, err
	}
	if m.inside, err = newNetlinkIn(namespace); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if err := m.move(name, target(name, devices[name])); err != nil {
			return nil, fmt.Errorf("linux.netDevices.%s: moving it into the container as %q: %w", name, target(name, devices[name]), err)
		}
	}
	return m, nil
}

// move brings one device, its addresses and its state.
func (m *Moved) move(name, to string) error {
	d, err := m.at.find(name)
	if err != nil {
		return err
	}
	addresses, err := m.at.addresses(d.index)
	if err != nil {
		return err
	}
	before, err := m.inside.devices()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(before, func(d device) bool { return d.name == to }) {
		return errdefs.AlreadyExists.Errorf("the container's network namespace has a device of that name")
	}
	if err := m.at.send(d.index, m.namespace, to); err != nil {
		return err
	}
	arrived, err := m.inside.arrived(before)
	if err != nil {
		return err
	}
	m.undo.Add("bring back "+name, func(context.Context) error {
		return errors.Join(m.inside.send(arrived.index, m.own, name), m.at.restore(name, d, addresses))
	})
	return m.inside.bringUp(arrived.index, addresses)
}

// restore gives a device that came back its addresses and its state.
func (n *netlink) restore(name string, was device, addresses []address) error {
	d, err := n.find(name)
	if err != nil || was.flags&unix.IFF_UP == 0 {
		return errors.Join(err, n.give(d.index, addresses))
	}
	return n.bringUp(d.index, addresses)
}

// Keep leaves the devices to the container.
func (m *Moved) Keep() {
	if m != nil {
		m.undo.Forget()
		m.close()
	}
}

// Back returns the devices to where they were. After Keep it does nothing.
func (m *Moved) Back() error {
	err := m.undo.Run()
	m.close()
	return err
}

func (m *Moved) close() {
	for _, fd := range []int{m.namespace, m.own} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	m.namespace, m.own = -1, -1
	for _, socket := range []*netlink{m.at, m.inside} {
		if socket != nil {
			socket.close()
		}
	}
	m.at, m.inside = nil, nil
}

// link is struct ifinfomsg.
func link(index int32, flags, change uint32) []byte {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	binary.NativeEndian.PutUint32(body[8:], flags)
	binary.NativeEndian.PutUint32(body[12:], change)
	return body
}

// find asks for a device by its name.
func (n *netlink) find(name string) (device, error) {
	answers, err := n.ask(unix.RTM_GETLINK, 0, link(0, 0, 0), text(unix.IFLA_IFNAME, name))
	if errors.Is(err, unix.ENODEV) {
		return device{}, errdefs.NotFound.Errorf("the host has no network device %q", name)
	}
	if err != nil {
		return device{}, err
	}
	if list := parseDevices(answers); len(list) == 1 {
		return list[0], nil
	}
	return device{}, errdefs.Internal.Errorf("expected one answer about device %q, got %d", name, len(answers))
}

func (n *netlink) devices() ([]device, error) {
	answers, err := n.ask(unix.RTM_GETLINK, unix.NLM_F_DUMP, link(0, 0, 0))
	return parseDevices(answers), err
}

func parseDevices(answers []message) (list []device) {
	for _, m := range answers {
		if m.kind == unix.RTM_NEWLINK && len(m.body) >= unix.SizeofIfInfomsg {
			name := attributesOf(m.body[unix.SizeofIfInfomsg:])[unix.IFLA_IFNAME]
			list = append(list, device{
				index: int32(binary.NativeEndian.Uint32(m.body[4:])), flags: binary.NativeEndian.Uint32(m.body[8:]),
				name: strings.TrimRight(string(name), "\x00"),
			})
		}
	}
	return list
}

// arrived finds the device that was not there before: it may have another
// index, and a name that the kernel made out of a template.
func (n *netlink) arrived(before []device) (device, error) {
	now, err := n.devices()
	if err != nil {
		return device{}, err
	}
	for _, d := range now {
		if !slices.ContainsFunc(before, func(b device) bool { return b.index == d.index }) {
			return d, nil
		}
	}
	return device{}, errdefs.NotFound.Errorf("the device did not arrive")
}

// send moves a device and renames it.
func (n *netlink) send(index int32, namespace int, name string) error {
	_, err := n.ask(unix.RTM_NEWLINK, 0, link(index, 0, 0), number(unix.IFLA_NET_NS_FD, uint32(namespace)), text(unix.IFLA_IFNAME, name))
	return err
}

// addresses lists a device's permanent global addresses.
func (n *netlink) addresses(index int32) (list []address, err error) {
	answers, err := n.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, err
	}
	for _, m := range answers {
		if m.kind != unix.RTM_NEWADDR || len(m.body) < unix.SizeofIfAddrmsg || int32(binary.NativeEndian.Uint32(m.body[4:])) != index {
			continue
		}
		a := address{family: m.body[0], prefix: m.body[1], flags: uint32(m.body[2]), scope: m.body[3], attributes: attributesOf(m.body[unix.SizeofIfAddrmsg:])}
		if long := a.attributes[unix.IFA_FLAGS]; len(long) == 4 {
			a.flags = binary.NativeEndian.Uint32(long)
		}
		if a.scope == unix.RT_SCOPE_UNIVERSE && a.flags&unix.IFA_F_PERMANENT != 0 {
			list = append(list, a)
		}
	}
	return list, nil
}

// keptFlags are those of an address that somebody set; the others the kernel
// finds out.
const keptFlags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_MCAUTOJOIN

// give adds addresses; one that is there is fine.
func (n *netlink) give(index int32, addresses []address) error {
	for _, a := range addresses {
		body := make([]byte, unix.SizeofIfAddrmsg)
		body[0], body[1], body[3] = a.family, a.prefix, a.scope
		binary.NativeEndian.PutUint32(body[4:], uint32(index))
		list := []attribute{number(unix.IFA_FLAGS, a.flags&keptFlags)}
		for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY} {
			if value, given := a.attributes[kind]; given {
				list = append(list, attribute{kind, value})
			}
		}
		if _, err := n.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body, list...); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("keeping its addresses: %w", err)
		}
	}
	return nil
}

// bringUp gives a device its addresses and sets it up.
func (n *netlink) bringUp(index int32, addresses []address) error {
	if err := n.give(index, addresses); err != nil {
		return err
	}
	if _, err := n.ask(unix.RTM_NEWLINK, 0, link(index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("setting it up: %w", err)
	}
	return nil
}
