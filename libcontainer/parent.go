package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

// stage is a process of ours in the stage, and the two channels to it: a
// socket for messages and a memory file for the plan.
type stage struct {
	pid    int
	former int // before an OP_CLONE, which ends it; 0: none that is not reaped
	socket int // ours
	memory int
	self   int  // this program, see protectedSelf; -1: closed
	init   bool // the container's first process
	silent bool // it has ended without a word
	unborn bool // it is to say when it has the namespaces that it makes itself
	reaped bool
	status unix.WaitStatus // once reaped
	plan   *nsenter.Plan
}

// birth is what a stage process is cloned with.
type birth struct {
	init       bool                               // of the container's first process
	files      []int                              // descriptors from 0 on; those of the stage are appended
	namespaces uintptr                            // CLONE_NEW* of those that are new
	keyring    string                             // joined with those that the stage makes, "": not
	pidFD      int                                // joined before the clone if not -1: a pidfd or a namespace's file
	cgroup     *cgroup.Cgroup                     // cloned into its v2 directory, if it has one; may be nil
	uids, gids []syscall.SysProcIDMap             // of a new user namespace
	unchanged  bool                               // it does not become its root
	elsewhere  func(error) (*cgroup.Cgroup, bool) // the cgroup, or none, if the first refuses; may be nil
}

// spawn starts this program again in the stage. The caller ends it by kill, or
// lets it go by release, and in either case closes it.
func spawn(b birth) (_ *stage, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	self, err := protectedSelf()
	if err != nil {
		return nil, fmt.Errorf("protecting the runtime's binary: %w", err)
	}
	undo.Add("close the runtime's binary", func(context.Context) error { return unix.Close(self) })
	closeOthersAtExec()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[1])
	undo.Add("close the stage's socket", func(context.Context) error { return unix.Close(pair[0]) })
	memory, err := memoryFile("plan")
	if err != nil {
		return nil, err
	}
	undo.Add("close the plan", func(context.Context) error { return unix.Close(memory) })
	s := &stage{socket: pair[0], memory: memory, self: self, init: b.init}
	if err := unix.SetsockoptTimeval(s.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, err
	}
	if err := s.start(b, pair[1]); err != nil {
		return nil, err
	}
	return s, nil
}

// closeOthersAtExec keeps what our caller has left open, or given us for the container,
// from hooks, and from the stage, which a container's process may look into. What the
// container is to have is handed over by number.
func closeOthersAtExec() {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return
	}
	entries, err := os.ReadDir("/proc/self/fd") // before 5.11
	if err != nil {
		slog.Warn("keeping the caller's descriptors from the container: " + err.Error())
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// divide says which of the new namespaces the clone makes and which the stage by
// itself. The clone stops us, 0.5 ms for a network namespace, which the stage takes
// while we find out what else it is to do. Those of a new user namespace are born with
// it, and a process does not get into its pid namespace but by birth.
func (b birth) divide() (cloned, made uintptr) {
	if b.namespaces&unix.CLONE_NEWUSER != 0 {
		return b.namespaces, 0
	}
	return b.namespaces & unix.CLONE_NEWPID, b.namespaces &^ unix.CLONE_NEWPID
}

// start clones and executes.
func (s *stage) start(b birth, socket int) error {
	files := make([]uintptr, 0, len(b.files)+3)
	for _, fd := range b.files {
		files = append(files, uintptr(fd))
	}
	first := len(files)
	files = append(files, uintptr(socket), uintptr(s.memory), uintptr(s.self))
	cloned, made := b.divide()
	s.unborn = made != 0
	attr := &syscall.ProcAttr{Env: []string{nsenter.Marker(first, made, b.keyring)}, Files: files, Sys: &syscall.SysProcAttr{Cloneflags: cloned}}
	closeCgroup, err := b.cloneInto(attr.Sys)
	if err != nil {
		return err
	}
	defer closeCgroup()
	if b.namespaces&unix.CLONE_NEWUSER != 0 {
		attr.Sys.UidMappings, attr.Sys.GidMappings, attr.Sys.GidMappingsEnableSetgroups = b.uids, b.gids, true
		if !b.unchanged {
			attr.Sys.Credential = &syscall.Credential{}
		}
	}
	program := "/proc/self/fd/" + strconv.Itoa(first+2) // as the child has it
	fork := func() error { return nsenter.Unbound(func() error { return s.fork(b, program, attr) }) }
	if b.pidFD < 0 {
		return fork()
	}
	return insidePid(b.pidFD, fork)
}

// insidePid runs fork while this thread's children are born in a pid namespace.
// That the thread is as before afterwards saves one of its own for that.
func insidePid(namespace int, fork func() error) error {
	own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening our own pid namespace: %w", err)
	}
	defer unix.Close(own)
	runtime.LockOSThread()
	if err := joinPid(namespace); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("joining the pid namespace: %w", err)
	}
	err = fork()
	if unix.Setns(own, unix.CLONE_NEWPID) == nil {
		runtime.UnlockOSThread() // else the thread is spent, and ends with the goroutine
	}
	return err
}

// cloneInto has the process born in the cgroup's v2 directory.
func (b *birth) cloneInto(attr *syscall.SysProcAttr) (done func(), err error) {
	if b.cgroup == nil || b.cgroup.Dir() == "" {
		return func() {}, nil
	}
	fd, err := unix.Open(b.cgroup.Dir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the cgroup: %w", err)
	}
	attr.UseCgroupFD, attr.CgroupFD = true, fd
	return func() { unix.Close(fd) }, nil
}

// fork clones. Without clone3 (5.3), or CLONE_INTO_CGROUP (5.7), the process
// is moved to its v2 cgroup afterwards, which waits for RCU.
func (s *stage) fork(b birth, program string, attr *syscall.ProcAttr) (err error) {
	args := []string{"ocirun", "init"}
	s.pid, err = syscall.ForkExec(program, args, attr)
	if errors.Is(err, unix.EPERM) && attr.Sys.UidMappings != nil && groupsDenied() {
		attr.Sys.GidMappingsEnableSetgroups = false
		if attr.Sys.Credential != nil {
			attr.Sys.Credential.NoSetGroups = true
		}
		s.pid, err = syscall.ForkExec(program, args, attr)
	}
	if old := errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.E2BIG); attr.Sys.UseCgroupFD && old {
		attr.Sys.UseCgroupFD = false
		if s.pid, err = syscall.ForkExec(program, args, attr); err == nil {
			if err = cgroup.At(cgroup.Location{V2: b.cgroup.Dir()}).Add(s.pid); err != nil { // v1's it joins itself
				err = errors.Join(err, s.kill())
			}
		}
	}
	if err != nil {
		return fmt.Errorf("starting the container's process: %w", err)
	}
	return nil
}

// groupsDenied: below a user namespace whose one id a user mapped himself nobody
// may call setgroups (user_namespaces(7)).
func groupsDenied() bool {
	answer, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && strings.TrimSpace(string(answer)) == "deny"
}

// joinPid sets the pid namespace that the thread's children are born in. fd is
// the namespace's file, a process in it, or that one's directory in /proc.
func joinPid(fd int) error {
	err := unix.Setns(fd, unix.CLONE_NEWPID)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	file, openErr := unix.Openat(fd, "ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if openErr != nil {
		return err
	}
	defer unix.Close(file)
	return unix.Setns(file, unix.CLONE_NEWPID)
}

// begin hands the plan over.
func (s *stage) begin(plan *nsenter.Plan) error {
	arm(plan)
	s.plan = plan
	encoded, err := plan.Encode()
	if err != nil {
		return fmt.Errorf("encoding the plan: %w", err)
	}
	if _, err := unix.Write(s.memory, encoded); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	if err := seal(s.memory); err != nil {
		return fmt.Errorf("sealing the plan: %w", err)
	}
	failpoint.At("stage-plan-written")
	err = s.send(nsenter.MessagePlan)
	if gone(err) { // it may have said why
		if failed := s.born(); failed != nil {
			return failed
		}
		s.silent = true
		return fmt.Errorf("the container's process ended before it had its plan: %w", err)
	}
	if err != nil {
		return err
	}
	failpoint.At("stage-plan-sent")
	return nil
}

func (s *stage) send(kind nsenter.MessageType) error {
	if err := unix.Send(s.socket, nsenter.Message{Type: kind}.Encode(), unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("talking to the container's process: %w", err)
	}
	return nil
}

// goOn tells the child that what it may wait for is done. If it has died its own
// word, which is still to be received, says why.
func (s *stage) goOn() error {
	err := s.send(nsenter.MessageContinue)
	if gone(err) {
		return nil
	}
	return err
}

// gone: the child is.
func gone(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

// born waits for the child to have the namespaces that it makes itself. Before, its
// pid is that of a process in the host's.
func (s *stage) born() error {
	if !s.unborn {
		return nil
	}
	m, ok, err := s.receive()
	switch {
	case err != nil:
		return err
	case !ok:
		s.silent = true
		return errdefs.Internal.Errorf("the container's process ended before it had its namespaces")
	case m.Type == nsenter.MessageError:
		return s.failure(m)
	case m.Type != nsenter.MessageBorn:
		return unexpected(m)
	}
	s.unborn = false
	return nil
}

// receive returns the next message; ok is false when the child closed.
func (s *stage) receive() (m nsenter.Message, ok bool, err error) {
	packet := make([]byte, 64)
	for {
		n, _, err := unix.Recvfrom(s.socket, packet, 0)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNRESET): // reset: it died with our word unread; its own may be there
			continue
		case errors.Is(err, unix.EAGAIN):
			// Somebody who may trace it could have taken its end, and keep that.
			if ended, err := hasEnded(s.pid); ended || err != nil {
				return m, false, err
			}
			continue
		case err == nil && n == 0:
			return m, false, nil
		case err != nil:
			return m, false, fmt.Errorf("listening to the container's process: %w", err)
		}
		m, err = nsenter.DecodeMessage(packet[:n])
		return m, err == nil, err
	}
}

// hasEnded looks at a child without taking its status.
func hasEnded(pid int) (bool, error) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		return false, fmt.Errorf("looking at process %d: %w", pid, err)
	}
	return info.Signo != 0, nil // SIGCHLD, or nothing has come
}

// duties are what the parent does when the child says so; nil where that
// cannot be.
type duties struct {
	step     func(uint64) error
	moved    func() error // the child goes on as s.pid
	listener func(fd int) error
}

// ending is how a child that has no more to say left us.
type ending int

const (
	ready    ending = iota // it waits for start
	executed               // it went on to execve
	lost                   // it ended on the way there
)

// follow serves the child's messages to the end.
func (s *stage) follow(d duties) (ending, error) {
	if err := s.born(); err != nil {
		return lost, err
	}
	s.closeSelf()
	for {
		m, ok, err := s.receive()
		if err != nil {
			return lost, err
		}
		if !ok {
			end := s.departed()
			s.silent = end == lost
			return end, nil
		}
		switch m.Type {
		case nsenter.MessageReady:
			return ready, nil
		case nsenter.MessageError:
			return lost, s.failure(m)
		case nsenter.MessageStep:
			if failpoint.Enabled && m.Value >= stepDeath {
				err = s.die(m.Value)
			} else {
				err = d.does(m)
			}
		case nsenter.MessagePid:
			err = s.moveOnce(&d, m)
		default:
			err = d.does(m)
		}
		if err != nil {
			return lost, err
		}
		if err := s.goOn(); err != nil {
			return lost, err
		}
		if err := s.reapFormer(); err != nil {
			return lost, err
		}
	}
}

const flagExiting = 4 // PF_EXITING, linux/sched.h

// departed tells a child that hung up because it executed its command from one that
// ended before, killed or by a filter that let it say no more: execve takes the
// stage's name from it. What does not show counts as executed, and so does a filter
// that kills at execve.
func (s *stage) departed() ending {
	stat, err := readStat(s.pid)
	if err != nil || stat.name != nsenter.StageName || stat.flags&flagExiting == 0 || stat.exit == 0 {
		return executed
	}
	if stat.exit.Signaled() && stat.exit.Signal() == unix.SIGSYS {
		return executed
	}
	return lost
}

// does what a message asks for that changes nothing here.
func (d *duties) does(m nsenter.Message) error {
	switch {
	case m.Type == nsenter.MessageStep && d.step != nil:
		return d.step(uint64(m.Value))
	case m.Type == nsenter.MessageListener && d.listener != nil:
		listener := d.listener
		d.listener = nil // there is one filter
		return listener(int(m.Value))
	}
	return unexpected(m)
}

// moveOnce follows an OP_CLONE. Where there may be one it comes before the child can be
// seen, and traced, by others; a second would be somebody else's idea.
func (s *stage) moveOnce(d *duties, m nsenter.Message) error {
	moved := d.moved
	if d.moved = nil; moved == nil {
		return unexpected(m)
	}
	s.former, s.pid, s.reaped = s.pid, int(m.Value), false
	return moved()
}

func unexpected(m nsenter.Message) error {
	return errdefs.Internal.Errorf("unexpected message %d from the container's process", m.Type)
}

// failure words the child's report.
func (s *stage) failure(m nsenter.Message) error {
	if m.Where == nsenter.WhereBirth {
		return fmt.Errorf("starting the container's process: making its namespaces: %w", syscall.Errno(m.Errno))
	}
	if m.Op >= len(s.plan.Ops) {
		return errdefs.Internal.Errorf("the container's process reports operation %d of %d", m.Op, len(s.plan.Ops))
	}
	if op := &s.plan.Ops[m.Op]; m.OfHook() && op.Code == nsenter.Hook {
		output := make([]byte, nsenter.MaxOutput)
		n, _, _ := unix.Recvfrom(s.socket, output, 0) // else there is none to show
		return startHookError(op.Text[0], op.Num[1], m, output[:max(n, 0)])
	}
	err := opError(&s.plan.Ops[m.Op], m.Where, syscall.Errno(m.Errno))
	if s.init {
		return fmt.Errorf("error during container init: %w", err)
	}
	return err
}

// opError words a failed operation. Those about the command are classified and
// worded as os/exec does, because programs look for them.
func opError(op *nsenter.Op, where nsenter.Where, errno syscall.Errno) error {
	command := op.Text[0]
	switch where {
	case nsenter.WherePath:
		return errdefs.NotFound.Coded(errdefs.ExecNotFound, command, "exec: %q: executable file not found in $PATH", command)
	case nsenter.WhereStat:
		if errno != unix.ENOENT && errno != unix.ENOTDIR {
			return errdefs.PermissionDenied.Coded(errdefs.ExecPermission, command, "exec: %q: %w", command, errno)
		}
		return errdefs.NotFound.Coded(errdefs.ExecNotFound, command, "exec: %q: stat %s: %w", command, command, errno)
	case nsenter.WhereAccess:
		return errdefs.PermissionDenied.Coded(errdefs.ExecPermission, command, "exec: %q: %w", command, errno)
	case nsenter.WhereDirectory:
		return errdefs.PermissionDenied.Coded(errdefs.ExecIsDirectory, command, "exec: %q: %w", command, errno)
	case nsenter.WhereUnsafe:
		return errdefs.PermissionDenied.Errorf("%s: refused, the path leads to a file system that it must not be on: %w", op.Describe(), errno)
	}
	return execError(op, errno)
}

// execError words what is left: an operation that the kernel refused.
func execError(op *nsenter.Op, errno syscall.Errno) error {
	switch {
	case op.Code == nsenter.Exec && errno == unix.ENOEXEC:
		return errdefs.InvalidArgument.Coded(errdefs.ExecFormat, op.Text[0], "exec %s: %w", op.Text[0], errno)
	case op.Code == nsenter.Exec && errno == unix.ENOENT: // the interpreter is missing
		return errdefs.NotFound.Coded(errdefs.ExecNotFound, op.Text[0], "exec %s: %w", op.Text[0], errno)
	case op.Code == nsenter.Exec:
		return errdefs.PermissionDenied.Coded(errdefs.ExecPermission, op.Text[0], "exec %s: %w", op.Text[0], errno)
	case op.Code == nsenter.Chdir:
		return errdefs.NotFound.Coded(errdefs.CwdMissing, op.Text[0], "%s: %w", op.Why, errno)
	}
	return fmt.Errorf("%s: %w", op.Describe(), errno)
}

// reap waits for the child and takes its status.
func (s *stage) reap() error {
	if s.reaped {
		return nil
	}
	var err error
	if s.status, err = waitFor(s.pid); err == nil {
		s.reaped = true
	}
	return err
}

// reapFormer waits for the process that went on as another, while that does go on.
func (s *stage) reapFormer() error {
	if s.former == 0 {
		return nil
	}
	_, err := waitFor(s.former)
	s.former = 0
	return err
}

func waitFor(pid int) (status unix.WaitStatus, err error) {
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return status, fmt.Errorf("waiting for process %d: %w", pid, err)
		}
		return status, nil
	}
}

// kill ends the child, at any point of its life.
func (s *stage) kill() error {
	if s.reaped {
		return nil
	}
	if err := unix.Kill(s.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return errors.Join(s.reap(), s.reapFormer())
}

// closeSelf is done while the child applies its plan, and after the child has closed
// it: the last to do so takes a mount away, which waits for RCU.
func (s *stage) closeSelf() {
	if s.self >= 0 {
		unix.Close(s.self)
		s.self = -1
	}
}

// close drops the channels.
func (s *stage) close() {
	s.closeSelf()
	unix.Close(s.socket)
	unix.Close(s.memory)
}
