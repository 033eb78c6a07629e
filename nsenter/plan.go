package nsenter

/*
#cgo CFLAGS: -O2 -Wall -Wextra -Werror
#include "plan.h"
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// StageName is the name of a process in the stage, until it executes its command.
const StageName = C.STAGE_NAME

// MaxOutput is how many bytes of a failed hook's output are told.
const MaxOutput = C.PLAN_MAX_OUTPUT

// marker begins the environment of a process that is to run the stage.
const marker = C.PLAN_MARKER

// Marker is that environment: first is the number of the first of three descriptors,
// which are the socket, the memory file and the program, namespaces (CLONE_NEW*) those
// that the stage makes before it waits for the plan, and keyring the session keyring that it
// then joins, "" for none.
func Marker(first int, namespaces uintptr, keyring string) string {
	text := marker + strconv.Itoa(first)
	if namespaces == 0 {
		return text
	}
	text += "," + strconv.FormatUint(uint64(namespaces), 16)
	if keyring != "" {
		text += "," + keyring
	}
	return text
}

// Code names an operation; plan.h says what its texts and numbers are.
type Code uint16

// Operations.
const (
	Adopt        Code = C.OP_ADOPT
	Proc         Code = C.OP_PROC
	Null         Code = C.OP_NULL
	Write        Code = C.OP_WRITE
	ProcWrite    Code = C.OP_PROC_WRITE
	Setns        Code = C.OP_SETNS
	SetnsAll     Code = C.OP_SETNS_ALL
	Unshare      Code = C.OP_UNSHARE
	Clone        Code = C.OP_CLONE
	Sync         Code = C.OP_SYNC
	Loopback     Code = C.OP_LOOPBACK
	Hostname     Code = C.OP_HOSTNAME
	Domainname   Code = C.OP_DOMAINNAME
	Propagation  Code = C.OP_PROPAGATION
	Root         Code = C.OP_ROOT
	RootHere     Code = C.OP_ROOT_HERE
	Target       Code = C.OP_TARGET
	CopyUp       Code = C.OP_COPY_UP
	Mount        Code = C.OP_MOUNT
	Tree         Code = C.OP_TREE
	Attach       Code = C.OP_ATTACH
	Attr         Code = C.OP_ATTR
	Mknod        Code = C.OP_MKNOD
	Symlink      Code = C.OP_SYMLINK
	Mask         Code = C.OP_MASK
	Readonly     Code = C.OP_READONLY
	Pivot        Code = C.OP_PIVOT
	MoveRoot     Code = C.OP_MOVE_ROOT
	Chroot       Code = C.OP_CHROOT
	Keyring      Code = C.OP_KEYRING
	Setsid       Code = C.OP_SETSID
	Terminal     Code = C.OP_TERMINAL
	StdioOwner   Code = C.OP_STDIO_OWNER
	Personality  Code = C.OP_PERSONALITY
	Affinity     Code = C.OP_AFFINITY
	MemoryPolicy Code = C.OP_MEMORY_POLICY
	Scheduler    Code = C.OP_SCHEDULER
	IOPriority   Code = C.OP_IOPRIO
	Rlimit       Code = C.OP_RLIMIT
	Umask        Code = C.OP_UMASK
	Chdir        Code = C.OP_CHDIR
	Bounding     Code = C.OP_BOUNDING
	User         Code = C.OP_USER
	Caps         Code = C.OP_CAPS
	NoNewPrivs   Code = C.OP_NO_NEW_PRIVS
	Home         Code = C.OP_HOME
	Env          Code = C.OP_ENV
	Args         Code = C.OP_ARGS
	Lookup       Code = C.OP_LOOKUP
	Cloexec      Code = C.OP_CLOEXEC
	Ready        Code = C.OP_READY
	AwaitStart   Code = C.OP_AWAIT_START
	Seccomp      Code = C.OP_SECCOMP
	Exec         Code = C.OP_EXEC
	Await        Code = C.OP_AWAIT
	Hook         Code = C.OP_HOOK
	Drop         Code = C.OP_DROP
	Control      Code = C.OP_CONTROL
	Started      Code = C.OP_STARTED
)

var codeNames = [...]string{
	Adopt: "adopt", Proc: "proc", Null: "null", Write: "write", ProcWrite: "proc-write",
	Setns: "setns", SetnsAll: "setns-all", Unshare: "unshare", Clone: "clone", Sync: "sync",
	Loopback: "loopback", Hostname: "hostname", Domainname: "domainname",
	Propagation: "propagation", Root: "root", RootHere: "root-here", Target: "target",
	CopyUp: "copy-up", Mount: "mount", Tree: "tree", Attach: "attach", Attr: "attr", Mknod: "mknod",
	Symlink: "symlink", Mask: "mask", Readonly: "readonly", Pivot: "pivot", MoveRoot: "move-root", Chroot: "chroot",
	Keyring: "keyring", Setsid: "setsid", Terminal: "terminal", StdioOwner: "stdio-owner",
	Personality: "personality", Affinity: "affinity", MemoryPolicy: "memory-policy", Scheduler: "scheduler", IOPriority: "io-priority",
	Rlimit: "rlimit", Umask: "umask", Chdir: "chdir", Bounding: "bounding", User: "user",
	Caps: "caps", NoNewPrivs: "no-new-privs", Home: "home", Env: "env", Args: "args",
	Lookup: "lookup", Cloexec: "cloexec", Ready: "ready", AwaitStart: "await-start",
	Seccomp: "seccomp", Exec: "exec", Await: "await", Hook: "hook", Drop: "drop", Control: "control", Started: "started",
}

func (c Code) String() string {
	if int(c) < len(codeNames) && codeNames[c] != "" {
		return codeNames[c]
	}
	return fmt.Sprintf("operation-%d", uint16(c))
}

// Flag is a bit of an operation's flags.
type Flag uint16

// Flags.
const (
	Optional    Flag = C.FLAG_OPTIONAL
	Recursive   Flag = C.FLAG_RECURSIVE
	NoSymlinks  Flag = C.FLAG_NO_SYMLINKS
	ProcInside  Flag = C.FLAG_PROC_INSIDE
	Replace     Flag = C.FLAG_REPLACE
	BindNode    Flag = C.FLAG_BIND
	Self        Flag = C.FLAG_SELF
	Console     Flag = C.FLAG_CONSOLE
	SetGroups   Flag = C.FLAG_GROUPS
	AfterUser   Flag = C.FLAG_AFTER_USER
	KeepMode    Flag = C.FLAG_KEEP_MODE
	Listener    Flag = C.FLAG_LISTENER
	Mounted     Flag = C.FLAG_MOUNTED
	Visible     Flag = C.FLAG_VISIBLE
	Own         Flag = C.FLAG_OWN
	Exact       Flag = C.FLAG_EXACT
	flagNames        = "optional recursive no-symlinks proc-inside replace bind self console groups after-user keep-mode listener mounted visible own exact"
	headerSize       = C.sizeof_struct_plan_header
	opSize           = C.sizeof_struct_plan_op
	blobAlign        = 8
	maxPlanSize      = C.PLAN_MAX_SIZE
	planVersion      = C.PLAN_VERSION
	planMagic        = C.PLAN_MAGIC
	opCount          = C.OP_COUNT
	pointerSize      = 8
)

// Slots are the descriptors that operations leave for each other.
const (
	SlotRoot      = C.SLOT_ROOT
	SlotTarget    = C.SLOT_TARGET
	SlotTree      = C.SLOT_TREE
	SlotFifo      = C.SLOT_FIFO
	SlotConsole   = C.SLOT_CONSOLE
	SlotContainer = C.SLOT_CONTAINER
	SlotReport    = C.SLOT_REPORT
)

// What Target expects, and makes if it is not there.
const (
	TargetDirectory = C.TARGET_DIRECTORY
	TargetFile      = C.TARGET_FILE
)

// Op is one operation.
type Op struct {
	Code    Code
	Flags   Flag
	Text    [3]string
	Num     [4]uint64
	Blob    []byte
	Strings []string // of Env and Args, instead of Blob
	Why     string   // for people: what this does, used in errors
}

// Plan is a list of operations in the order in which they are done.
type Plan struct{ Ops []Op }

// Add appends an operation.
func (p *Plan) Add(op Op) { p.Ops = append(p.Ops, op) }

// encoder lays a plan out as plan.h says: header, operations, blobs, texts.
type encoder struct {
	out   []byte
	texts []byte
	fixes []fix // text offsets in out that lack the texts' start
}

type fix struct{ at, offset int }

// Encode returns the plan as the stage reads it.
func (p *Plan) Encode() ([]byte, error) {
	e := encoder{out: make([]byte, headerSize+opSize*len(p.Ops), 32<<10), texts: make([]byte, 1, 8<<10)}
	for i := range p.Ops {
		if err := e.op(headerSize+opSize*i, &p.Ops[i]); err != nil {
			return nil, fmt.Errorf("operation %d, %s: %w", i, p.Ops[i].Code, err)
		}
	}
	for _, f := range e.fixes {
		binary.NativeEndian.PutUint32(e.out[f.at:], uint32(len(e.out)+f.offset))
	}
	e.out = append(e.out, e.texts...)
	if len(e.out) > maxPlanSize {
		return nil, fmt.Errorf("the plan has %d bytes: expected at most %d", len(e.out), maxPlanSize)
	}
	binary.NativeEndian.PutUint32(e.out, planMagic)
	binary.NativeEndian.PutUint16(e.out[4:], planVersion)
	binary.NativeEndian.PutUint16(e.out[6:], opSize)
	binary.NativeEndian.PutUint32(e.out[8:], uint32(len(p.Ops)))
	binary.NativeEndian.PutUint32(e.out[12:], uint32(len(e.out)))
	return e.out, nil
}

// op writes one operation at offset at.
func (e *encoder) op(at int, op *Op) error {
	blob, err := op.blob()
	if err != nil {
		return err
	}
	for len(e.out)%blobAlign != 0 {
		e.out = append(e.out, 0)
	}
	start := len(e.out)
	e.out = append(e.out, blob...)
	record := e.out[at : at+opSize]
	binary.NativeEndian.PutUint16(record, uint16(op.Code))
	binary.NativeEndian.PutUint16(record[2:], uint16(op.Flags))
	binary.NativeEndian.PutUint32(record[4:], uint32(start))
	binary.NativeEndian.PutUint32(record[8:], uint32(len(blob)))
	for i, text := range op.Text {
		if err := e.text(at+12+4*i, text); err != nil {
			return err
		}
	}
	for i, number := range op.Num {
		binary.NativeEndian.PutUint64(record[24+8*i:], number)
	}
	return nil
}

// text adds a string whose offset goes to at. An empty one is offset 0.
func (e *encoder) text(at int, text string) error {
	if text == "" {
		return nil
	}
	if strings.IndexByte(text, 0) >= 0 {
		return fmt.Errorf("%q has a NUL byte", text)
	}
	e.fixes = append(e.fixes, fix{at, len(e.texts)})
	e.texts = append(e.texts, text...)
	e.texts = append(e.texts, 0)
	return nil
}

// blob returns the operation's bytes. Strings get room for their pointers in
// front: their own, a NULL, and for Env one more, which Home may fill.
func (op *Op) blob() ([]byte, error) {
	if op.Code != Env && op.Code != Args {
		return op.Blob, nil
	}
	room := len(op.Strings) + 1
	if op.Code == Env {
		room++
	}
	op.Num[0] = uint64(len(op.Strings))
	out := make([]byte, room*pointerSize)
	for _, s := range op.Strings {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("%q has a NUL byte", s)
		}
		out = append(out, s...)
		out = append(out, 0)
	}
	return out, nil
}

// String prints the plan, one line per operation.
func (p *Plan) String() string {
	var b strings.Builder
	for i := range p.Ops {
		fmt.Fprintf(&b, "%3d %s\n", i, p.Ops[i].String())
	}
	return b.String()
}

// String prints the operation: name, texts, numbers, flags, reason.
func (op *Op) String() string {
	var b strings.Builder
	b.WriteString(op.Code.String())
	for i := range lastSet(op.Text[:]) {
		fmt.Fprintf(&b, " %q", op.Text[i])
	}
	for i := range lastSet(op.Num[:]) {
		fmt.Fprintf(&b, " %#x", op.Num[i])
	}
	if len(op.Strings) > 0 {
		fmt.Fprintf(&b, " %q", op.Strings)
	}
	if len(op.Blob) > 0 {
		fmt.Fprintf(&b, " [%d bytes]", len(op.Blob))
	}
	for i, name := range strings.Fields(flagNames) {
		if op.Flags>>i&1 != 0 {
			b.WriteString(" +" + name)
		}
	}
	if op.Why != "" {
		b.WriteString("    # " + op.Why)
	}
	return b.String()
}

// lastSet returns how many leading elements reach to the last that is not zero.
func lastSet[T comparable](values []T) int {
	var zero T
	for n := len(values); n > 0; n-- {
		if values[n-1] != zero {
			return n
		}
	}
	return 0
}

// Describe says what the operation does, for an error.
func (op *Op) Describe() string {
	if op.Why != "" {
		return op.Why
	}
	return op.String()
}
