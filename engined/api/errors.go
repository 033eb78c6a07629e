package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"

	"github.com/moby/moby/api/types/common"

	"github.com/engined/engined/proto/errdefs"
)

// status returns the HTTP status of an error's kind.
func status(err error) int {
	switch errdefs.KindOf(err) {
	case errdefs.InvalidArgument:
		return http.StatusBadRequest
	case errdefs.Unauthenticated:
		return http.StatusUnauthorized
	case errdefs.PermissionDenied:
		return http.StatusForbidden
	case errdefs.NotFound:
		return http.StatusNotFound
	case errdefs.Conflict, errdefs.AlreadyExists, errdefs.FailedPrecondition:
		return http.StatusConflict
	case errdefs.NotModified:
		return http.StatusNotModified
	case errdefs.NotImplemented:
		return http.StatusNotImplemented
	case errdefs.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// prefixed is an error that dockerd words with a prefix before the cause.
type prefixed struct {
	prefix string
	err    error
}

func (p *prefixed) Error() string { return p.prefix + p.err.Error() }
func (p *prefixed) Unwrap() error { return p.err }

// prefix returns err with what dockerd writes before it; nil stays nil.
func prefix(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &prefixed{fmt.Sprintf(format, args...), err}
}

// ofExec marks the failure to start a process beside a container's first one,
// which dockerd frames in other words.
type ofExec struct{ error }

func (o ofExec) Unwrap() error { return o.error }

// message returns an error's text in Docker's wording. Its command line and
// many scripts match on some of them: they are rendered here and nowhere else.
func message(err error) string {
	if p, ok := err.(*prefixed); ok { //nolint:errorlint // only the outermost is worded
		return p.prefix + message(p.err)
	}
	code, subject := errdefs.CodeAndSubject(err)
	if words := startWords(code, subject); words != "" {
		return frame(err) + words + ": unknown"
	}
	switch code {
	case errdefs.NoSuchContainer:
		return "No such container: " + subject
	case errdefs.NoSuchImage:
		return "No such image: " + subject
	case errdefs.NoSuchExec:
		return "No such exec instance: " + subject
	case errdefs.NoSuchNetwork:
		return fmt.Sprintf("network %s not found", subject)
	case errdefs.UserUnknown:
		return fmt.Sprintf("unable to find user %s: no matching entries in passwd file", subject)
	}
	return err.Error()
}

// startWords is what runc says of a command that it cannot execute; "" for
// other causes.
func startWords(code errdefs.Code, subject string) string {
	switch code {
	case errdefs.ExecNotFound:
		return execNotFound(subject)
	case errdefs.ExecPermission:
		return fmt.Sprintf("exec: %q: permission denied", subject)
	case errdefs.ExecIsDirectory:
		// Debian's command line exits 126 for the one, newer ones for both.
		return fmt.Sprintf("exec: %q: is a directory: permission denied", subject)
	case errdefs.ExecFormat:
		return fmt.Sprintf("exec: %q: exec format error", subject)
	case errdefs.CwdMissing:
		return fmt.Sprintf("chdir to cwd (%q) set in config.json failed: no such file or directory", subject)
	}
	return ""
}

// frame is what dockerd writes before its runtime's words.
func frame(err error) string {
	var exec ofExec
	if errors.As(err, &exec) {
		return "OCI runtime exec failed: exec failed: unable to start container process: "
	}
	return "failed to create shim task: OCI runtime create failed: ocirun create failed: unable to start container process: "
}

// execNotFound is what Go's exec says, which is what runc reports: a name is
// looked for in PATH, a path is looked at.
func execNotFound(command string) string {
	if strings.Contains(command, "/") {
		return fmt.Sprintf("exec: %q: stat %s: no such file or directory", command, path.Clean(command))
	}
	return fmt.Sprintf("exec: %q: executable file not found in $PATH", command)
}

// writeError answers a request with an error.
func writeError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	code := status(err)
	if code == http.StatusInternalServerError && r.Context().Err() == nil {
		log.Error("handler returned an error", "method", r.Method, "path", r.URL.Path, "error", err)
	} else {
		log.Debug("handler returned an error", "method", r.Method, "path", r.URL.Path, "status", code, "error", err)
	}
	if code == http.StatusNotModified {
		w.WriteHeader(code) // a 304 has no body
		return
	}
	if err := writeJSON(w, code, common.ErrorResponse{Message: message(err)}); err != nil {
		log.Debug("answering with an error", "error", err)
	}
}
