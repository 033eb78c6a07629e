package nsenter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// FuzzInterpreter feeds plans to the stage's C code, built with gcc's address
// and undefined behaviour sanitizers, which carries them out in namespaces and
// with a root of its own (testdata/stage_fuzz.c). An input is either operations,
// a few bytes for each, so that most plans get past the check of their form, or
// the bytes of a plan as it is.
//
//	go test ./nsenter -fuzz Interpreter -parallel 1
func FuzzInterpreter(f *testing.F) {
	server := startServer(f)
	for code := Code(1); code < opCount; code++ { // each alone, and after what it may need
		f.Add(true, []byte{byte(Proc), 0, 0, 0, 0, 0, 0, 0, byte(RootHere), 0, 0, 0, 0, 0, 0, 0,
			byte(Target), 0, 0, 3, 4, 0, 1, 2, byte(code), 0, byte(code), 1, 2, 3, 1, 2, byte(code), 0xff, 5, 6, 7, 8, 9, 4})
	}
	f.Add(false, []byte("not a plan"))
	whole, err := (&Plan{Ops: []Op{{Code: Chdir, Text: [3]string{"/a"}}, {Code: Args, Strings: []string{"x", "y"}}, {Code: Exec}}}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, whole)
	f.Fuzz(func(t *testing.T, structured bool, data []byte) {
		if structured {
			plan := planOf(data)
			encoded, err := plan.Encode()
			if err != nil {
				t.Skip(err)
			}
			data = encoded
		}
		if len(data) > 1<<20 {
			t.Skip("larger than the server takes")
		}
		if answer := server.apply(t, data); answer != 0 {
			t.Fatalf("the interpreter ended with %d:\n%s", answer, server.said())
		}
	})
}

// words are texts that lead somewhere in the server's root, or nowhere.
var words = []string{"", "/", "/a", "/a/b/c", "/link/x", "/loop", "/magic", "/etc/passwd", "/proc/self/status", "..", "/../..//a/./b/",
	"/dev/pts/ptmx", "tmpfs", "proc", "size=1k,mode=755", "a=b", "HOME=", "PATH=/a:/etc:", ":", "self/oom_score_adj", "sys/kernel/hostname",
	strings.Repeat("x", 300), strings.Repeat("/y", 2100), strings.Repeat("a/", 2047) + "b"}

var numbers = []uint64{0, 1, 2, 3, 5, 7, 10, 11, 64, 255, 4096, 0o755, 1 << 16, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 63, 1<<64 - 1, 0x20000, 0x10000000}

// planOf makes an operation of each eight bytes.
func planOf(data []byte) *Plan {
	plan := &Plan{}
	for ; len(data) >= 8 && len(plan.Ops) < 64; data = data[8:] {
		op := Op{Code: Code(1 + int(data[0]-1)%(opCount-1)), Flags: Flag(data[1])<<4 | Flag(data[1])>>4 | Optional}
		for i := range op.Text {
			op.Text[i] = words[int(data[2+i])%len(words)]
		}
		for i := range op.Num {
			op.Num[i] = numbers[int(data[4+i])%len(numbers)]
		}
		switch op.Code {
		case Env, Args:
			for _, b := range data[2:8] {
				op.Strings = append(op.Strings, words[int(b)%len(words)])
			}
		case User, Seccomp, Affinity, Scheduler:
			op.Blob = bytes.Repeat(data[2:8], int(data[7])%40)
		}
		plan.Ops = append(plan.Ops, op)
	}
	return plan
}

// interpreter is the server's process.
type interpreter struct {
	in     io.WriteCloser
	out    io.ReadCloser
	report *os.File // its standard error
}

// startServer compiles and starts it, in a user namespace that is nobody's.
func startServer(f *testing.F) *interpreter {
	f.Helper()
	if os.Geteuid() != 0 {
		f.Skip("needs root: maps a user namespace to nobody")
	}
	compiler, err := exec.LookPath("gcc")
	if err != nil {
		f.Skip("needs gcc: ", err)
	}
	binary := filepath.Join(f.TempDir(), "server")
	build := exec.Command(compiler, "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
		"-Wl,--wrap=syscall,--wrap=setrlimit,--wrap=waitpid", "-o", binary, "testdata/stage_fuzz.c", "path.c", "mount.c", "copy.c", "process.c", "hook.c")
	if out, err := build.CombinedOutput(); bytes.Contains(out, []byte("asan")) {
		f.Skipf("gcc has no address sanitizer: %s", out)
	} else if err != nil {
		f.Fatalf("%v: %s", err, out)
	}
	return serve(f, binary)
}

func serve(f *testing.F, binary string) *interpreter {
	program, err := os.Open(binary)
	if err != nil {
		f.Fatal(err)
	}
	defer program.Close()
	// Appended to, or what was said before would count against the limit of a file's size
	// after it has been emptied.
	report, err := os.OpenFile(filepath.Join(f.TempDir(), "report"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	cmd := exec.Command("/proc/self/fd/3") // its directory is closed to the namespace's user
	cmd.ExtraFiles, cmd.Stderr = []*os.File{program}, report
	nobody := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{UidMappings: nobody, GidMappings: nobody, Credential: &syscall.Credential{NoSetGroups: true}, Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	s := &interpreter{report: report}
	if s.in, err = cmd.StdinPipe(); err != nil {
		f.Fatal(err)
	}
	if s.out, err = cmd.StdoutPipe(); err != nil {
		f.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.Skip("needs user namespaces: ", err)
	}
	f.Cleanup(func() {
		_ = s.in.Close()
		if err := cmd.Wait(); err != nil {
			f.Errorf("the server: %v\n%s", err, s.said())
		}
		_ = report.Close()
	})
	return s
}

// apply has a plan carried out and returns what was found: 99 a sanitizer's
// report, 3 a server that does not work here, 100 + a signal.
func (s *interpreter) apply(t *testing.T, plan []byte) byte {
	t.Helper()
	if err := s.report.Truncate(0); err != nil {
		t.Fatal(err)
	}
	message := append(binary.NativeEndian.AppendUint32(nil, uint32(len(plan))), plan...)
	if _, err := s.in.Write(message); err != nil {
		t.Fatalf("the server is gone: %v\n%s", err, s.said())
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(s.out, answer); err != nil {
		t.Fatalf("the server is gone: %v\n%s", err, s.said())
	}
	return answer[0]
}

func (s *interpreter) said() string {
	text, err := os.ReadFile(s.report.Name())
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(bytes.Trim(text, "\x00"))
}
