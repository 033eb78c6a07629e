package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/engined/engined/proto/errdefs"
)

// golden are errors as their owners make them; testdata/errors.golden has what
// a client sees of each. The words are dockerd 20.10's own answers, where it
// has the same error.
var golden = []error{
	errdefs.NotFound.Coded(errdefs.NoSuchContainer, "foo", "x"),
	fmt.Errorf("starting: %w", errdefs.NotFound.Coded(errdefs.NoSuchContainer, "foo", "x")),
	prefix(errdefs.NotFound.Coded(errdefs.NoSuchContainer, "foo", "x"), "Cannot kill container: %s: ", "foo"),
	errdefs.NotFound.Coded(errdefs.NoSuchImage, "nope:latest", "x"),
	errdefs.NotFound.Coded(errdefs.NoSuchExec, "zzz", "x"),
	errdefs.NotFound.Coded(errdefs.NoSuchNetwork, "foo", "x"),
	errdefs.Conflict.Coded(errdefs.NameTaken, "x", "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/x", "1234"),
	errdefs.InvalidArgument.Coded(errdefs.ExecNotFound, "nope", "x"),
	ofExec{errdefs.InvalidArgument.Coded(errdefs.ExecNotFound, "nope", "x")},
	errdefs.InvalidArgument.Coded(errdefs.ExecNotFound, "/bin/nope", "x"),
	errdefs.InvalidArgument.Coded(errdefs.ExecPermission, "/etc/passwd", "x"),
	errdefs.InvalidArgument.Coded(errdefs.ExecIsDirectory, "/bin", "x"),
	errdefs.InvalidArgument.Coded(errdefs.ExecFormat, "/bin/text", "x"),
	errdefs.InvalidArgument.Coded(errdefs.CwdMissing, "/no", "x"),
	errdefs.InvalidArgument.Coded(errdefs.UserUnknown, "joe", "x"),
	errdefs.InvalidArgument.Errorf("No command specified"),
	errdefs.Unauthenticated.Errorf("who"),
	errdefs.PermissionDenied.Errorf("no"),
	errdefs.AlreadyExists.Errorf("there"),
	errdefs.FailedPrecondition.Errorf("not now"),
	errdefs.NotModified.Coded(errdefs.AlreadyStarted, "x", "x"),
	errdefs.NotImplemented.Errorf("not here"),
	errdefs.Unavailable.Errorf("later"),
	errdefs.DataLoss.Errorf("gone"),
	errors.New("nobody classified <this>"),
}

func TestErrorsReadAsDockers(t *testing.T) {
	var got strings.Builder
	for _, err := range golden {
		w := httptest.NewRecorder()
		writeError(w, httptest.NewRequest("GET", "/", nil), slog.New(slog.DiscardHandler), err)
		fmt.Fprintf(&got, "%d %s\n", w.Code, strings.TrimSpace(w.Body.String()))
	}
	path := filepath.Join("testdata", "errors.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}

// The command lines decide about 126 and 127 by these words.
func TestStartFailuresCarryTheWordsThatClientsMatch(t *testing.T) {
	for code, words := range map[errdefs.Code]string{
		errdefs.ExecNotFound:    "executable file not found",
		errdefs.ExecPermission:  "permission denied",
		errdefs.ExecIsDirectory: "permission denied",
	} {
		if text := message(errdefs.InvalidArgument.Coded(code, "foo", "x")); !strings.Contains(text, words) {
			t.Errorf("%s: %q lacks %q", code, text, words)
		}
	}
}
