package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// data is struct seccomp_data.
type data struct {
	number, arch uint32
	args         [6]uint64
}

// interpret runs a program as the kernel would and counts instructions.
func interpret(t testing.TB, program []byte, d data) (result verdict, steps int) {
	t.Helper()
	memory := binary.LittleEndian.AppendUint32(nil, d.number)
	memory = binary.LittleEndian.AppendUint32(memory, d.arch)
	memory = binary.LittleEndian.AppendUint64(memory, 0)
	for _, arg := range d.args {
		memory = binary.LittleEndian.AppendUint64(memory, arg)
	}
	var a uint32
	for pc := 0; ; steps++ {
		if pc*8+8 > len(program) {
			t.Fatalf("ran out of the program at %d", pc)
		}
		code := binary.LittleEndian.Uint16(program[pc*8:])
		jt, jf := int(program[pc*8+2]), int(program[pc*8+3])
		k := binary.LittleEndian.Uint32(program[pc*8+4:])
		pc++
		branch := func(holds bool) {
			if holds {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.LittleEndian.Uint32(memory[k:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= k
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			branch(a == k)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			branch(a >= k)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			branch(a > k)
		case unix.BPF_RET | unix.BPF_K:
			return verdict(k), steps + 1
		default:
			t.Fatalf("instruction %d has code %#x", pc-1, code)
		}
	}
}

func profile(t testing.TB, text string) *specs.LinuxSeccomp {
	t.Helper()
	var p specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return &p
}

func dockerd(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	text, err := os.ReadFile("testdata/dockerd-20.10.json")
	if err != nil {
		t.Fatal(err)
	}
	return profile(t, string(text))
}

func compile(t testing.TB, p *specs.LinuxSeccomp) Filter {
	t.Helper()
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func onAmd64(t testing.TB) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("numbers are amd64's")
	}
}

// conditional exercises every operator, alternatives, precedence and 64 bits.
const conditional = `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[
 {"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4294967301,"op":"SCMP_CMP_EQ"}]},
 {"names":["write","no_such_call"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":5,"op":"SCMP_CMP_NE"}]},
 {"names":["open"],"action":"SCMP_ACT_ALLOW","args":[{"index":2,"value":8589934599,"op":"SCMP_CMP_LT"}]},
 {"names":["close"],"action":"SCMP_ACT_ALLOW","args":[{"index":3,"value":8589934599,"op":"SCMP_CMP_LE"}]},
 {"names":["stat"],"action":"SCMP_ACT_ALLOW","args":[{"index":4,"value":8589934599,"op":"SCMP_CMP_GT"}]},
 {"names":["fstat"],"action":"SCMP_ACT_ALLOW","args":[{"index":5,"value":8589934599,"op":"SCMP_CMP_GE"}]},
 {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
 {"names":["lseek"],"action":"SCMP_ACT_TRACE","errnoRet":7,"args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_GT"}]},
 {"names":["mmap"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":3,"op":"SCMP_CMP_EQ"}]},
 {"names":["mprotect"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
 {"names":["mprotect"],"action":"SCMP_ACT_TRAP"},
 {"names":["munmap"],"action":"SCMP_ACT_ALLOW"},
 {"names":["munmap"],"action":"SCMP_ACT_LOG"},
 {"names":["brk"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
 {"names":["socket","bind"],"action":"SCMP_ACT_ALLOW"},
 {"names":["shmget"],"action":"SCMP_ACT_ALLOW"}]}`

// TestAgreesWithLibseccomp compares, call by call, with the filter that
// libseccomp itself generates from the same rules.
func TestAgreesWithLibseccomp(t *testing.T) {
	onAmd64(t)
	plain := dockerd(t)
	plain.DefaultErrnoRet = ptr(uint(unix.ENOSYS)) // libseccomp has no ENOSYS rule: make both alike
	only64 := dockerd(t)
	only64.DefaultErrnoRet = plain.DefaultErrnoRet
	only64.Architectures = []specs.Arch{specs.ArchX86_64}
	for name, p := range map[string]*specs.LinuxSeccomp{
		"dockerd": plain, "x86-64 only": only64, "conditional": profile(t, conditional),
		"deny list": profile(t, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount","umount2"],"action":"SCMP_ACT_KILL"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			theirs := libseccomp(t, p)
			ours := compile(t, p).Program
			for _, d := range cases(p) {
				want, _ := interpret(t, theirs, d)
				got, _ := interpret(t, ours, d)
				if want != got {
					t.Errorf("%#x %#x %x: libseccomp says %#x, we %#x", d.arch, d.number, d.args, want, got)
				}
			}
		})
	}
}

// cases covers all numbers with and without x32's bit, and for the calls with
// conditions, arguments at their borders and random ones.
func cases(p *specs.LinuxSeccomp) []data {
	var list []data
	var values []uint64
	for _, s := range p.Syscalls {
		for _, arg := range s.Args {
			for _, v := range []uint64{arg.Value, arg.ValueTwo} {
				values = append(values, v, v-1, v+1, v&0xffffffff, v|1<<40)
			}
		}
	}
	values = append(values, 0, 1, 2, 3, 1<<63, ^uint64(0))
	random := rand.New(rand.NewPCG(1, 2))
	for _, audit := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64} {
		for number := range uint32(600) {
			for _, n := range []uint32{number, number | x32Bit} {
				if audit == unix.AUDIT_ARCH_I386 && n&x32Bit != 0 {
					continue
				}
				for range 12 {
					d := data{number: n, arch: audit}
					for i := range d.args {
						d.args[i] = values[random.IntN(len(values))]
						if audit == unix.AUDIT_ARCH_I386 {
							d.args[i] &= 0xffffffff
						}
					}
					list = append(list, d)
				}
			}
		}
		list = append(list, data{number: x32Bit - 1, arch: audit}, data{number: 0x7fffffff, arch: audit}, data{number: ^uint32(0), arch: audit})
	}
	return list
}

func ptr[T any](v T) *T { return &v }

// libseccomp writes a C program that adds the profile's rules through
// libseccomp's API as runc does, runs it, and returns the filter it exports.
func libseccomp(t *testing.T, p *specs.LinuxSeccomp) []byte {
	t.Helper()
	compiler, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	var c strings.Builder
	action := func(a specs.LinuxSeccompAction, errno *uint) string {
		n := uint(unix.EPERM)
		if errno != nil {
			n = *errno
		}
		switch a {
		case specs.ActErrno, specs.ActTrace:
			return fmt.Sprintf("%s(%d)", a, n)
		}
		return string(a)
	}
	fmt.Fprintf(&c, "#include <seccomp.h>\nint main(void) { int n = 0; (void)n; scmp_filter_ctx f = seccomp_init(%s);\n", action(p.DefaultAction, p.DefaultErrnoRet))
	for _, a := range p.Architectures {
		fmt.Fprintf(&c, "seccomp_arch_add(f, %s);\n", a)
	}
	for _, s := range p.Syscalls {
		if action(s.Action, s.ErrnoRet) == action(p.DefaultAction, p.DefaultErrnoRet) {
			continue
		}
		seen := map[uint]bool{}
		twice := false
		var all []string
		for _, arg := range s.Args {
			twice = twice || seen[arg.Index]
			seen[arg.Index] = true
			all = append(all, fmt.Sprintf("SCMP_CMP64(%d, %s, %dULL, %dULL)", arg.Index, arg.Op, arg.Value, arg.ValueTwo))
		}
		alternatives := [][]string{all}
		if twice {
			alternatives = nil
			for _, one := range all {
				alternatives = append(alternatives, []string{one})
			}
		}
		for _, name := range s.Names {
			for _, conditions := range alternatives {
				fmt.Fprintf(&c, "n = seccomp_syscall_resolve_name(%q); if (n != __NR_SCMP_ERROR && seccomp_rule_add(f, %s, n, %d", name, action(s.Action, s.ErrnoRet), len(conditions))
				for _, condition := range conditions {
					c.WriteString(", " + condition)
				}
				c.WriteString(")) return 1;\n")
			}
		}
	}
	c.WriteString("return seccomp_export_bpf(f, 1) ? 1 : 0; }\n")
	dir := t.TempDir()
	file := filepath.Join(dir, "generate.c")
	if err := os.WriteFile(file, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(compiler, "-o", filepath.Join(dir, "generate"), file, "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := exec.Command(filepath.Join(dir, "generate")).Output()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func TestUnknownNumbersAnswerENOSYS(t *testing.T) {
	onAmd64(t)
	const x86 = unix.AUDIT_ARCH_X86_64
	for _, c := range []struct {
		name, profile string
		number        uint32
		want          verdict
	}{
		{"above the largest", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","chdir"],"action":"SCMP_ACT_ALLOW"}]}`, 81, enosys},
		{"below the largest", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","chdir"],"action":"SCMP_ACT_ALLOW"}]}`, 79, 0x50001},
		{"a rule without effect counts", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["chdir"],"action":"SCMP_ACT_ERRNO"}]}`, 79, 0x50001},
		{"also for KILL", `{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"names":["chdir"],"action":"SCMP_ACT_ALLOW"}]}`, 81, enosys},
		{"x32's bit unlisted", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, x32Bit, enosys},
		{"not if the default permits", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, 81, unix.SECCOMP_RET_LOG},
		{"no rules", `{"defaultAction":"SCMP_ACT_ERRNO"}`, 81, 0x50001},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _ := interpret(t, compile(t, profile(t, c.profile)).Program, data{number: c.number, arch: x86})
			if got != c.want {
				t.Errorf("got %#x, want %#x", got, c.want)
			}
		})
	}
}

func TestInvalidProfilesNameTheField(t *testing.T) {
	for _, c := range []struct{ field, text string }{
		{"defaultAction", `{"defaultAction":"ALLOW"}`},
		{"architectures[0]", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["amd64"]}`},
		{"flags", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["LOUD"]}`},
		{"syscalls[0].names", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_KILL"}]}`},
		{"syscalls[0].action", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":5000}]}`},
		{"syscalls[0].args[0].op", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
			{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":0,"op":"EQ"}]}]}`},
		{"syscalls[0].args[0].index", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
			{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}`},
		{"syscalls[0]", `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/s","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}`},
		{"listenerMetadata", `{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}`},
		{"flags", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}`},
		{"listenerPath", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`},
	} {
		_, err := Compile(profile(t, c.text))
		code, subject := errdefs.CodeAndSubject(err)
		if code != errdefs.SpecInvalid || subject != "linux.seccomp."+c.field {
			t.Errorf("%s: got %q %q (%v)", c.field, code, subject, err)
		}
	}
}

func TestFlagsAndNotify(t *testing.T) {
	f := compile(t, profile(t, `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/s",
		"flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
		"syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}`))
	if f.Flags != 2|4|32 || !f.Notify {
		t.Errorf("flags %#x, notify %v", f.Flags, f.Notify)
	}
	for text, want := range map[string]uint{`{"defaultAction":"SCMP_ACT_ALLOW"}`: 4, `{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}`: 0} {
		if f := compile(t, profile(t, text)); f.Flags != want {
			t.Errorf("%s: flags %#x, expected %#x", text, f.Flags, want)
		}
	}
}

// TestTheKernelRunsTheFilter loads the filter in a child, which then tries
// calls; the test binary is the child.
func TestTheKernelRunsTheFilter(t *testing.T) {
	if os.Getenv("SECCOMP_PROBE") != "" {
		probe()
	}
	onAmd64(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestTheKernelRunsTheFilter$")
	cmd.Env = append(os.Environ(), "SECCOMP_PROBE=1")
	out, err := cmd.CombinedOutput()
	want := "personality(0xffffffff) 0\npersonality(0x20) EPERM\nmount EPERM\nkeyctl EPERM\nunknown ENOSYS\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, got:\n%swant:\n%s", err, out, want)
	}
}

func probe() {
	text, err := os.ReadFile("testdata/dockerd-20.10.json")
	exit(err)
	var p specs.LinuxSeccomp
	exit(json.Unmarshal(text, &p))
	f, err := Compile(&p)
	exit(err)
	program := make([]unix.SockFilter, len(f.Program)/8)
	for i := range program {
		b := f.Program[i*8:]
		program[i] = unix.SockFilter{Code: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:])}
	}
	runtime.LockOSThread()
	exit(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&filter))); errno != 0 {
		exit(errno)
	}
	for _, c := range []struct {
		name         string
		number, arg0 uintptr
	}{
		{"personality(0xffffffff)", unix.SYS_PERSONALITY, 0xffffffff},
		{"personality(0x20)", unix.SYS_PERSONALITY, 0x20},
		{"mount", unix.SYS_MOUNT, 0},
		{"keyctl", unix.SYS_KEYCTL, 0},
		{"unknown", 2000, 0},
	} {
		_, _, errno := unix.RawSyscall(c.number, c.arg0, 0, 0)
		shown := "0"
		if errno != 0 {
			shown = unix.ErrnoName(errno)
		}
		fmt.Println(c.name, shown)
	}
	os.Exit(0)
}

func exit(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// BenchmarkCompile also reports the size and the steps of a call.
func BenchmarkCompile(b *testing.B) {
	p := dockerd(b)
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
	program := compile(b, p).Program
	total, worst := 0, 0
	for number := range uint32(450) {
		_, steps := interpret(b, program, data{number: number, arch: unix.AUDIT_ARCH_X86_64})
		total += steps
		worst = max(worst, steps)
	}
	b.ReportMetric(float64(len(program)/8), "instructions")
	b.ReportMetric(float64(total)/450, "steps/call")
	b.ReportMetric(float64(worst), "steps/worst")
}
