package errdefs

import (
	"context"
	"errors"
	"fmt"

	cerrdefs "github.com/containerd/errdefs"
)

// Kind is the class of a failure. The zero Kind is Unknown.
type Kind string

// The kinds, named as containerd/errdefs names its sentinels.
const (
	Unknown            Kind = ""
	InvalidArgument    Kind = "invalid-argument"
	Unauthenticated    Kind = "unauthenticated"
	PermissionDenied   Kind = "permission-denied"
	NotFound           Kind = "not-found"
	AlreadyExists      Kind = "already-exists"
	Conflict           Kind = "conflict"
	FailedPrecondition Kind = "failed-precondition"
	NotModified        Kind = "not-modified"
	NotImplemented     Kind = "not-implemented"
	ResourceExhausted  Kind = "resource-exhausted"
	Unavailable        Kind = "unavailable"
	Aborted            Kind = "aborted"
	DataLoss           Kind = "data-loss"
	Canceled           Kind = "canceled"
	DeadlineExceeded   Kind = "deadline-exceeded"
	Internal           Kind = "internal"
)

// sentinels maps each kind to the value that errors.Is finds it by.
var sentinels = map[Kind]error{
	Unknown:            cerrdefs.ErrUnknown,
	InvalidArgument:    cerrdefs.ErrInvalidArgument,
	Unauthenticated:    cerrdefs.ErrUnauthenticated,
	PermissionDenied:   cerrdefs.ErrPermissionDenied,
	NotFound:           cerrdefs.ErrNotFound,
	AlreadyExists:      cerrdefs.ErrAlreadyExists,
	Conflict:           cerrdefs.ErrConflict,
	FailedPrecondition: cerrdefs.ErrFailedPrecondition,
	NotModified:        cerrdefs.ErrNotModified,
	NotImplemented:     cerrdefs.ErrNotImplemented,
	ResourceExhausted:  cerrdefs.ErrResourceExhausted,
	Unavailable:        cerrdefs.ErrUnavailable,
	Aborted:            cerrdefs.ErrAborted,
	DataLoss:           cerrdefs.ErrDataLoss,
	Canceled:           context.Canceled,
	DeadlineExceeded:   context.DeadlineExceeded,
	Internal:           cerrdefs.ErrInternal,
}

// Code is a cause that a program acts on. Most errors have none.
type Code string

// The codes. Subject is what [Error.Subject] names for each.
const (
	ExecNotFound    Code = "exec-not-found"    // subject: the command; exit status 127
	ExecPermission  Code = "exec-permission"   // subject: the command; exit status 126
	ExecIsDirectory Code = "exec-is-dir"       // subject: the command; exit status 126
	ExecFormat      Code = "exec-format"       // subject: the command; not a binary this kernel runs
	CwdMissing      Code = "cwd-missing"       // subject: the directory
	NameTaken       Code = "name-taken"        // subject: the name
	NoSuchContainer Code = "no-such-container" // subject: the reference as the caller wrote it
	NoSuchImage     Code = "no-such-image"     // subject: the reference as the caller wrote it
	NoSuchExec      Code = "no-such-exec"      // subject: the exec id
	NoSuchNetwork   Code = "no-such-network"   // subject: the reference as the caller wrote it
	AmbiguousPrefix Code = "ambiguous-prefix"  // subject: the prefix
	Busy            Code = "busy"              // subject: the verb that is in the way
	NotRunning      Code = "not-running"       // subject: the container or process
	Running         Code = "running"           // subject: the container
	AlreadyStarted  Code = "already-started"   // subject: the container
	Paused          Code = "paused"            // subject: the container
	ImageInUse      Code = "image-in-use"      // subject: the image
	BundleInvalid   Code = "bundle-invalid"    // subject: the bundle's path
	SpecInvalid     Code = "spec-invalid"      // subject: the field, as linux.namespaces[2].type
	RuntimeMissing  Code = "runtime-missing"   // subject: the runtime's name
	UserUnknown     Code = "user-unknown"      // subject: the user or group
	PortTaken       Code = "port-taken"        // subject: address:port/protocol
	OOM             Code = "oom"               // subject: the container
	ShimLost        Code = "shim-lost"         // subject: the container
	ShimStuck       Code = "shim-stuck"        // subject: the container
	EventsGone      Code = "events-gone"       // subject: the oldest sequence number still kept
)

// Error is a classified error. It is made where the class is known and wrapped
// with %w on its way up; [KindOf] and [CodeOf] find it from there.
type Error struct {
	Kind    Kind
	Code    Code
	Subject string // what Code is about, see the constants
	Err     error  // text and causes
}

// Error returns the text for people.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that e classifies.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is containerd/errdefs' sentinel for e's kind.
func (e *Error) Is(target error) bool {
	sentinel, known := sentinels[e.Kind]
	return known && target == sentinel
}

// Errorf returns an error of kind k; %w works as in fmt.Errorf.
func (k Kind) Errorf(format string, args ...any) *Error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Coded returns an error of kind k with a code and the code's subject.
func (k Kind) Coded(code Code, subject, format string, args ...any) *Error {
	return &Error{Kind: k, Code: code, Subject: subject, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost classified error in err's tree.
// Contexts' errors and containerd/errdefs' own sentinels count as classified.
// It is Unknown for nil and for what nobody classified.
func KindOf(err error) Kind {
	var classified *Error
	if errors.As(err, &classified) {
		return classified.Kind
	}
	if err == nil {
		return Unknown
	}
	for kind, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			return kind
		}
	}
	return Unknown
}

// CodeOf returns the code of the outermost coded error in err's tree, or "".
func CodeOf(err error) Code {
	code, _ := CodeAndSubject(err)
	return code
}

// CodeAndSubject returns the code and subject of the outermost coded error in
// err's tree, or two empty strings.
func CodeAndSubject(err error) (Code, string) {
	for {
		var classified *Error
		if !errors.As(err, &classified) {
			return "", ""
		}
		if classified.Code != "" {
			return classified.Code, classified.Subject
		}
		err = classified.Err
	}
}

// Wire is an error as it crosses a process boundary.
type Wire struct {
	Kind    Kind   `json:"kind,omitempty"`
	Code    Code   `json:"code,omitempty"`
	Subject string `json:"subject,omitempty"`
	Text    string `json:"msg"`
}

// ToWire flattens err. It returns the zero Wire for nil.
func ToWire(err error) Wire {
	if err == nil {
		return Wire{}
	}
	code, subject := CodeAndSubject(err)
	return Wire{Kind: KindOf(err), Code: code, Subject: subject, Text: err.Error()}
}

// Err rebuilds a classified error from w.
func (w Wire) Err() *Error {
	return &Error{Kind: w.Kind, Code: w.Code, Subject: w.Subject, Err: errors.New(w.Text)}
}
