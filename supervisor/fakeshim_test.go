package supervisor_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// fakeShim speaks the shim's protocol and runs processes on the host, without a
// runtime: what the supervisor does with a shim is tested without root. It is
// this test binary, run by the supervisor under test.
type fakeShim struct {
	bundle string

	mu        sync.Mutex // guards what follows
	listeners []*shim.Conn
	running   map[string]*exec.Cmd
	known     map[string]bool // started and not forgotten
	ended     sync.WaitGroup
}

const fakeShimVariable = "SUPERVISOR_TEST_FAKE_SHIM"

// runFakeShim is main for `shim ID BUNDLE RUNTIME`, and for one that is started
// ahead.
func runFakeShim() {
	bundle := os.Args[2]
	if os.Args[1] == shim.SpareCommand {
		bundle = awaitAdoption()
	}
	f := &fakeShim{bundle: bundle, running: map[string]*exec.Cmd{}, known: map[string]bool{}}
	start, _ := shim.StartTime(os.Getpid())
	self := shim.Self{Pid: os.Getpid(), Start: start, Version: shim.Version}
	if err := shim.WriteFile(shim.SelfFile, self); err != nil {
		panic(err)
	}
	for {
		fd, _, err := unix.Accept4(shim.SocketFD, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			panic(err)
		}
		go f.serve(shim.NewConn(fd), self)
	}
}

// awaitAdoption waits for a container and returns its bundle.
func awaitAdoption() string {
	message := make([]byte, shim.HeaderSize+shim.MaxBody)
	n, fds, err := shim.ReceiveMessage(shim.SocketFD, message)
	if err == nil && n == 0 {
		os.Exit(0) // the supervisor has ended
	}
	packet, parseErr := shim.ParsePacket(message[:n])
	var adoption shim.Adoption
	if err := errors.Join(err, parseErr, packet.Decode(&adoption), os.Chdir(adoption.Dir), unix.Dup3(fds[0], shim.SocketFD, 0)); err != nil {
		panic(err)
	}
	return adoption.Bundle
}

func (f *fakeShim) serve(conn *shim.Conn, self shim.Self) {
	for {
		p, err := conn.Receive(context.Background())
		if err != nil {
			return
		}
		p.Body = append([]byte(nil), p.Body...)
		answer := func() {
			reply, err := f.answer(conn, p, self)
			typ := shim.Ok
			if err != nil {
				typ, reply = shim.Error, errdefs.ToWire(err)
			}
			f.send(conn, typ, p.ID, reply)
			if p.Type == shim.Delete {
				os.Exit(0)
			}
		}
		if p.Type == shim.Hello { // answered before what comes after it is begun
			answer()
			continue
		}
		go answer()
	}
}

func (f *fakeShim) send(conn *shim.Conn, typ shim.Type, id uint32, body any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if packet, err := shim.MakePacket(typ, id, body); err == nil {
		conn.Send(context.Background(), packet)
	}
}

func (f *fakeShim) answer(conn *shim.Conn, p shim.Packet, self shim.Self) (any, error) {
	var signal shim.SignalRequest
	switch p.Type {
	case shim.Hello:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.listeners = append(f.listeners, conn)
		return shim.HelloReply{Self: self}, nil
	case shim.List:
		f.mu.Lock()
		defer f.mu.Unlock()
		return shim.ListReply{Processes: slices.Sorted(maps.Keys(f.known))}, nil
	case shim.Start:
		return f.start(p)
	case shim.Signal:
		if err := p.Decode(&signal); err != nil {
			return nil, err
		}
		return nil, f.kill(signal.Process, syscall.Signal(signal.Signal))
	case shim.Forget:
		var ref shim.ProcessRef
		err := p.Decode(&ref)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.known, ref.Process)
		return nil, err
	case shim.CloseStdin, shim.Resize:
		return nil, nil
	case shim.Delete:
		f.mu.Lock()
		for _, cmd := range f.running {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		f.mu.Unlock()
		f.ended.Wait()
		return nil, nil
	}
	return nil, errdefs.NotImplemented.Errorf("%s", p.Type)
}

func (f *fakeShim) start(p shim.Packet) (any, error) {
	var ref shim.ProcessRef
	if err := p.Decode(&ref); err != nil {
		return nil, err
	}
	process, err := f.process(ref.Process)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(process.Args[0], process.Args[1:]...)
	cmd.Env = process.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, errdefs.NotFound.Coded(errdefs.ExecNotFound, process.Args[0], "starting: %w", err)
	}
	begun, _ := shim.StartTime(cmd.Process.Pid)
	started := shim.Started{Pid: cmd.Process.Pid, Start: begun, Time: time.Now()}
	f.running[ref.Process], f.known[ref.Process] = cmd, true
	err = shim.WriteFile(filepath.Join(ref.Process, shim.StartedFile), started)
	f.ended.Go(func() { f.reap(ref, cmd) })
	return started, err
}

func (f *fakeShim) process(name string) (*specs.Process, error) {
	process := &specs.Process{}
	if name != shim.Init {
		return process, shim.ReadFile(filepath.Join(name, shim.ProcessFile), process)
	}
	data, err := os.ReadFile(filepath.Join(f.bundle, "config.json"))
	spec := specs.Spec{Process: process}
	return process, errors.Join(err, json.Unmarshal(data, &spec))
}

func (f *fakeShim) reap(ref shim.ProcessRef, cmd *exec.Cmd) {
	cmd.Wait()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	exit := shim.Exit{Status: status.ExitStatus(), Time: time.Now()}
	if status.Signaled() {
		exit.Signal, exit.Status = int(status.Signal()), 128+int(status.Signal())
	}
	shim.WriteFile(filepath.Join(ref.Process, shim.ExitFile), exit)
	f.mu.Lock()
	delete(f.running, ref.Process)
	listeners := f.listeners
	f.mu.Unlock()
	for _, conn := range listeners {
		f.send(conn, shim.Exited, 0, ref)
	}
}

func (f *fakeShim) kill(process string, signal syscall.Signal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	cmd := f.running[process]
	if cmd == nil {
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, process, "not running")
	}
	return syscall.Kill(-cmd.Process.Pid, signal)
}
