package nsenter

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// runStage starts this test binary in the stage with the plan's bytes, and
// returns what it reports and its standard output.
func runStage(t *testing.T, plan []byte) (Message, string, int) {
	t.Helper()
	return runStageIn(t, 0, plan)
}

// runStageIn has the stage make namespaces first.
func runStageIn(t *testing.T, namespaces uintptr, plan []byte) (Message, string, int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	memory, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(memory, plan); err != nil {
		t.Fatal(err)
	}
	socketFile, memoryFile := os.NewFile(uintptr(pair[1]), "socket"), os.NewFile(uintptr(memory), "plan")
	var stdout strings.Builder
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{Marker(3, namespaces, "")}
	cmd.Stdout = &stdout
	cmd.ExtraFiles = []*os.File{socketFile, memoryFile}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	socketFile.Close()
	memoryFile.Close()
	if err := unix.Send(pair[0], Message{Type: MessagePlan}.Encode(), unix.MSG_NOSIGNAL); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err)
	}
	packet := make([]byte, 64)
	n, _, err := unix.Recvfrom(pair[0], packet, 0)
	if errors.Is(err, unix.ECONNRESET) { // it died with our word unread; its own is behind that
		n, _, err = unix.Recvfrom(pair[0], packet, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	var m Message
	if n > 0 {
		if m, err = DecodeMessage(packet[:n]); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Wait() //nolint:errcheck // the status is what the caller looks at
	return m, stdout.String(), cmd.ProcessState.ExitCode()
}

func encode(t *testing.T, ops ...Op) []byte {
	t.Helper()
	encoded, err := (&Plan{Ops: ops}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func TestStageBecomesTheProcess(t *testing.T) {
	m, stdout, status := runStage(t, encode(t,
		Op{Code: Proc},
		Op{Code: Env, Strings: []string{"A=b"}},
		Op{Code: Args, Strings: []string{"sh", "-c", `echo $A $0; exit 5`}},
		Op{Code: Cloexec, Num: [4]uint64{3}},
		Op{Code: Lookup, Text: [3]string{"sh", "/nope:/bin"}},
		Op{Code: Exec},
	))
	if m != (Message{}) || stdout != "b sh\n" || status != 5 {
		t.Errorf("got %+v %q %d", m, stdout, status)
	}
}

func TestStageReportsTheFailedOperation(t *testing.T) {
	m, _, status := runStage(t, encode(t,
		Op{Code: Write, Text: [3]string{"/nope", "x"}, Flags: Optional},
		Op{Code: Chdir, Text: [3]string{"/nope"}},
		Op{Code: Exec},
	))
	if m.Type != MessageError || m.Op != 1 || syscall.Errno(m.Errno) != unix.ENOENT || status == 0 {
		t.Errorf("got %+v, status %d", m, status)
	}
}

// Before it knows its plan the stage makes the namespaces that it was told of.
func TestStageMakesNamespacesFirst(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	print := encode(t, Op{Code: Env}, Op{Code: Args, Strings: []string{"readlink", "/proc/self/ns/uts", "/proc/self/ns/net"}},
		Op{Code: Lookup, Text: [3]string{"readlink", "/usr/bin:/bin"}}, Op{Code: Exec})
	var ours []string
	for _, name := range []string{"uts", "net"} {
		link, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, link)
	}
	m, stdout, status := runStageIn(t, unix.CLONE_NEWUTS, print)
	theirs := strings.Fields(stdout)
	if m.Type != MessageBorn || status != 0 || len(theirs) != 2 || theirs[0] == ours[0] || theirs[1] != ours[1] {
		t.Errorf("got %+v %q %d, we are in %q", m, stdout, status, ours)
	}
}

func TestStageReportsNamespacesThatCannotBeMade(t *testing.T) {
	m, _, status := runStageIn(t, unix.CLONE_PTRACE, encode(t, Op{Code: Exec})) // no namespace's flag
	if m.Type != MessageError || m.Where != WhereBirth || syscall.Errno(m.Errno) != unix.EINVAL || status != 1 {
		t.Errorf("got %+v, status %d", m, status)
	}
}

// The plan is our own, but a bug in its making must not become a jump into
// the dark.
func TestMalformedPlanIsRefused(t *testing.T) {
	good := encode(t, Op{Code: Chdir, Text: [3]string{"/"}}, Op{Code: Args, Strings: []string{"a"}})
	change := func(at int, values ...byte) []byte {
		bad := append([]byte(nil), good...)
		copy(bad[at:], values)
		return bad
	}
	for name, plan := range map[string][]byte{
		"empty":            {},
		"short":            good[:8],
		"cut":              good[:len(good)-1],
		"no NUL":           change(len(good)-1, 'x'),
		"magic":            change(0, 'x'),
		"version":          change(4, 99),
		"operation size":   change(6, 8),
		"too many":         change(8, 0xff, 0xff),
		"size":             change(12, 1),
		"unknown code":     change(headerSize, 0xff, 0x7f),
		"no code":          change(headerSize, 0, 0),
		"text outside":     change(headerSize+12, 0xff, 0xff, 0xff, 0x7f),
		"blob outside":     change(headerSize+opSize+4, 0xf8, 0xff, 0xff, 0x7f),
		"blob too long":    change(headerSize+opSize+8, 0xff, 0xff, 0xff, 0xff),
		"blob unaligned":   change(headerSize+opSize+4, good[headerSize+opSize+4]+1),
		"too many strings": change(headerSize+opSize+24, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"no execve":        encode(t),
	} {
		m, _, status := runStage(t, plan)
		if m.Type != MessageError || m.Where != WherePlan || status != 1 {
			t.Errorf("%s: got %+v, status %d", name, m, status)
		}
	}
}

func TestStageEndsWithItsParent(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(pair[1]), "socket")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{Marker(3, 0, "")}
	cmd.ExtraFiles = []*os.File{socket}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	socket.Close()
	unix.Close(pair[0])
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("status %d", cmd.ProcessState.ExitCode())
	}
}
