package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
)

const pidFile = "pid"

// launch is the start of one process, until it runs or has failed.
type launch struct {
	*process
	undo   errdefs.Undo
	answer func(proto.Started, error)
	files  [3]int         // the process's ends of its stdio, ours until the runtime has them; -1: none
	ears   int            // listening console socket, -1 if none
	socket string         // its path, relative to our directory
	held   map[string]int // by path: write ends of fifos, see holdFifo
}

// start starts the process that NAME/request.json describes. Answer is called
// once, from the loop.
func (s *Shim) start(name string, answer func(proto.Started, error)) {
	s.starts++
	p, err := s.register(name)
	if err != nil {
		answer(proto.Started{}, err)
		return
	}
	l := &launch{process: p, answer: answer, files: [3]int{-1, -1, -1}, ears: -1}
	l.undo.Add("forget the process", func(context.Context) error {
		delete(s.processes, name)
		return nil
	})
	if err := l.prepare(); err != nil {
		l.fail(err)
		return
	}
	l.awaitFifos(func(err error) {
		if err == nil {
			err = l.run()
		}
		if err != nil {
			l.fail(err)
		}
	})
}

// register makes the process known, so that a second Start of it is refused.
func (s *Shim) register(name string) (*process, error) {
	if !validName(name) {
		return nil, errdefs.InvalidArgument.Errorf("process is %q, expected a name of letters, digits, _ . and -", name)
	}
	if s.deleting {
		return nil, errdefs.FailedPrecondition.Errorf("container %s is being deleted", s.ID)
	}
	if s.processes[name] != nil {
		return nil, errdefs.AlreadyExists.Coded(errdefs.AlreadyStarted, name, "process %s was started already", name)
	}
	p := &process{s: s, name: name, console: -1}
	if err := proto.ReadFile(p.file(proto.RequestFile), &p.request); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errdefs.NotFound.Errorf("process %s has no request: %w", name, err)
		}
		return nil, err
	}
	if p.request.Checkpoint != "" && (name != proto.Init || p.request.CreateOnly) {
		return nil, errdefs.InvalidArgument.Errorf("checkpoint is set for process %s, expected for %s alone and without create_only", name, proto.Init)
	}
	if name != proto.Init && p.request.CreateOnly {
		return nil, errdefs.InvalidArgument.Errorf("create_only is set for process %s, expected for %s alone", name, proto.Init)
	}
	p.awaiting = p.request.AwaitAttach
	s.processes[name] = p
	return p, nil
}

// prepare makes what the process's stdio goes through.
func (l *launch) prepare() error {
	l.undo.Add("close stdio and log", func(context.Context) error {
		l.releaseFiles()
		l.letFifosGo()
		l.closeIO()
		return nil
	})
	if l.request.Log != nil {
		log, err := logfile.Open(*l.request.Log, l.s.memory.encode)
		if err != nil {
			return err
		}
		l.log = log
		failpoint.At("shim-log-opened")
	}
	if l.request.Terminal {
		return l.hearConsole()
	}
	return l.makePipes()
}

func (l *launch) makePipes() error {
	for i, stream := range []logfile.Stream{logfile.Stdout, logfile.Stderr} {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("making a pipe for %s: %w", stream, err)
		}
		l.files[i+1] = ends[1]
		l.outputs = append(l.outputs, &output{p: l.process, stream: stream, fd: ends[0]})
		if err := unix.SetNonblock(ends[0], true); err != nil {
			return fmt.Errorf("making the pipe for %s non-blocking: %w", stream, err)
		}
	}
	if !l.request.OpenStdin && l.request.Stdin == "" {
		return nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("making a pipe for stdin: %w", err)
	}
	l.files[0] = ends[0]
	l.input = &input{p: l.process, fd: ends[1]}
	return unix.SetNonblock(ends[1], true)
}

// run calls the runtime.
func (l *launch) run() error {
	if l.s.deleting {
		return errdefs.Aborted.Errorf("container %s is being deleted", l.s.ID)
	}
	if err := os.Remove(l.file(pidFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.oomBase = l.s.oomKills()
	call := invocation{files: l.files, log: proto.RuntimeLog}
	switch {
	case l.name != proto.Init:
		// A log of its own: several may be starting at once.
		call.verb, call.log = "exec", l.file(proto.RuntimeLog)
		call.args = []string{"--detach", "--process", filepath.Join(l.s.dir, l.file(proto.ProcessFile))}
	case l.request.Checkpoint != "":
		call.verb, call.args = "restore", l.restoreArgs()
	case l.request.CreateOnly:
		call.verb, call.args = "create", []string{"--bundle", l.s.Bundle}
	default:
		call.verb, call.args = "run", []string{"--detach", "--bundle", l.s.Bundle}
	}
	if l.request.NoPivot && l.name == proto.Init {
		call.args = append(call.args, "--no-pivot")
	}
	call.args = append(call.args, "--pid-file", filepath.Join(l.s.dir, l.file(pidFile)))
	if l.ears >= 0 {
		call.args = append(call.args, "--console-socket", fmt.Sprintf("/proc/%d/cwd/%s", os.Getpid(), l.socket))
	}
	call.args = append(call.args, l.s.ID)
	child, err := l.s.invoke(call, l.returned)
	if err != nil {
		return err
	}
	l.call = child
	failpoint.At("shim-runtime-called")
	l.releaseFiles()
	return nil
}

// restoreArgs are runc's: what was running goes on with this process's stdio.
func (l *launch) restoreArgs() []string {
	args := []string{
		"--detach", "--bundle", l.s.Bundle,
		"--image-path", filepath.Join(l.request.CheckpointDir, l.request.Checkpoint),
		"--work-path", filepath.Join(l.s.dir, l.file(proto.CRIUDir)),
	}
	return append(args, l.request.RestoreFlags...)
}

// releaseFiles closes the process's ends: only with its own copies gone do our
// ends see the end of the stream.
func (l *launch) releaseFiles() {
	closeAll(l.files[:]...)
	l.files = [3]int{-1, -1, -1}
}

// returned goes on when the runtime has ended.
func (l *launch) returned(err error) {
	l.call = nil
	failpoint.At("shim-runtime-returned")
	if err != nil {
		l.clean(l.about(l.explain(err)))
		return
	}
	if err := l.began(); err != nil {
		l.clean(err)
		return
	}
	l.undo.Forget()
	l.answer(l.started, nil)
	failpoint.At("shim-start-answered")
	if l.name == proto.Init {
		l.s.findCgroup(l.started.Pid)
	}
	if l.phase < dead { // it may have been reaped between
		l.flow()
	}
}

// explain adds what the runtime wrote to the standard error that it was to hand
// on, where its log says nothing.
func (l *launch) explain(err error) error {
	if errdefs.KindOf(err) != errdefs.Unknown || len(l.outputs) == 0 {
		return err
	}
	text := make([]byte, 4096)
	n, _ := unix.Read(l.outputs[len(l.outputs)-1].fd, text)
	said := strings.TrimSpace(string(text[:max(n, 0)]))
	if said == "" || strings.Contains(said, err.Error()) {
		return err
	}
	if wire := classify(said); wire.Code != "" {
		return wire.Err()
	}
	return fmt.Errorf("%w: %s", err, said)
}

// about fills in the command that an error is about, where the runtime does not
// say it (crun: open executable: Permission denied).
func (l *launch) about(err error) error {
	var coded *errdefs.Error
	if !errors.As(err, &coded) || coded.Subject != "" {
		return err
	}
	switch coded.Code {
	case errdefs.ExecNotFound, errdefs.ExecPermission, errdefs.ExecIsDirectory, errdefs.ExecFormat:
		coded.Subject = l.command()
	}
	return err
}

// command returns the first argument of the process.
func (l *launch) command() string {
	type process struct {
		Args []string `json:"args"`
	}
	var spec struct {
		Process process `json:"process"`
	}
	var err error
	if l.name == proto.Init {
		err = proto.ReadFile(filepath.Join(l.s.Bundle, "config.json"), &spec)
	} else {
		err = proto.ReadFile(l.file(proto.ProcessFile), &spec.Process)
	}
	if err != nil || len(spec.Process.Args) == 0 {
		return ""
	}
	return spec.Process.Args[0]
}

// began takes the new process over. It becomes a known child first of all: what
// fails after that has something to kill.
func (l *launch) began() error {
	pid, err := l.readPid()
	if err != nil {
		return err
	}
	if l.child, err = l.s.adopt(pid, l.process.exited); err != nil {
		return err
	}
	if l.ears >= 0 {
		if err := l.takeConsole(); err != nil {
			return err
		}
	}
	start, err := proto.StartTime(pid)
	if err != nil {
		return fmt.Errorf("the process that the runtime started: %w", err)
	}
	l.started = proto.Started{Pid: pid, Start: start, Time: time.Now().UTC()}
	if err := proto.WriteFile(l.file(proto.StartedFile), l.started); err != nil {
		return err
	}
	failpoint.At("shim-started-written")
	l.phase = running
	if l.request.CreateOnly {
		l.phase = created
	}
	return l.open()
}

func (l *launch) readPid() (int, error) {
	text, err := os.ReadFile(l.file(pidFile))
	if err != nil {
		return 0, fmt.Errorf("the runtime wrote no pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, errdefs.Internal.Errorf("the runtime wrote %q as pid", text)
	}
	return pid, nil
}

// open connects the process's stdio to the loop.
func (l *launch) open() error {
	if l.awaiting > 0 {
		l.await = l.s.after(proto.AttachWait, l.process.release)
	}
	if err := l.openFifos(); err != nil {
		return err
	}
	for _, o := range l.outputs {
		source, err := l.s.add(o.fd, 0, func(uint32) { o.pump() })
		if err != nil {
			return err
		}
		o.source = source
		l.s.pause(source) // until flow
	}
	return nil
}

// clean gives back what a failed start left, then answers.
func (l *launch) clean(cause error) {
	switch {
	case l.name == proto.Init:
		_ = l.discard(func() {}) // `delete --force` kills it too
		l.cleanContainer(cause)
	case l.child == nil:
		l.killUnnamed()
		l.fail(cause)
	default:
		if err := l.discard(func() { l.fail(cause) }); err != nil {
			l.fail(errors.Join(cause, err))
		}
	}
}

// discard kills the process, which runs but not as it was to, and calls gone when
// it is reaped. Its status is nobody's.
func (l *launch) discard(gone func()) error {
	if l.child == nil {
		return nil
	}
	l.child.exited = func(unix.WaitStatus) { gone() }
	if err := l.child.kill(unix.SIGKILL); err != nil {
		l.child.exited = func(unix.WaitStatus) {}
		return fmt.Errorf("killing process %d: %w", l.child.pid, err)
	}
	return nil
}

// cleanContainer has the runtime remove what is left of the container, then answers.
func (l *launch) cleanContainer(cause error) {
	l.s.killStrays()
	_, err := l.s.invoke(invocation{
		verb: "delete", args: []string{"--force", l.s.ID}, log: proto.RuntimeLog, files: [3]int{-1, -1, -1},
	}, func(err error) {
		if err != nil && errdefs.CodeOf(err) != errdefs.NoSuchContainer {
			logf("cleaning up after a failed start: %v", err)
		}
		l.s.removeCgroups(cgroupTries, func() { l.fail(cause) })
	})
	if err != nil {
		l.fail(errors.Join(cause, err))
	}
}

// fail unwinds and answers.
func (l *launch) fail(err error) {
	l.phase = finished
	if failed := l.undo.Run(); failed != nil {
		logf("%v", failed)
	}
	l.answer(proto.Started{}, err)
	l.s.sunk()
}

// resume starts a created container.
func (s *Shim) resume(answer func(proto.Started, error)) {
	p, err := s.alive(proto.Init)
	if err == nil && p.phase != created {
		err = errdefs.FailedPrecondition.Coded(errdefs.AlreadyStarted, s.ID, "container %s is not in the state created", s.ID)
	}
	if err != nil {
		answer(proto.Started{}, err)
		return
	}
	p.phase = starting
	p.call, err = s.invoke(invocation{verb: "start", args: []string{s.ID}, log: proto.RuntimeLog, files: [3]int{-1, -1, -1}}, func(err error) {
		p.call = nil
		if err == nil {
			p.started.Time = time.Now().UTC()
			err = proto.WriteFile(p.file(proto.StartedFile), p.started)
		}
		if p.phase == starting {
			p.phase = running
			if err != nil {
				p.phase = created
			}
		}
		answer(p.started, err)
		s.settleExit(p)
	})
	if err != nil {
		p.phase = created
		answer(proto.Started{}, err)
	}
}
