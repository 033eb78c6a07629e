package shim

import (
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

// texts is what runc and crun say about causes that a program acts on. They
// have no other way to tell, so this table is the one place where the text of
// an error is read; ocirun says kind and code and does not come here. The first
// row with all its parts in the text counts.
var texts = []struct {
	parts []string
	kind  errdefs.Kind
	code  errdefs.Code
}{
	// runc: chdir to cwd ("/x") set in config.json failed: no such file or directory
	{[]string{"chdir to cwd", "no such file or directory"}, errdefs.InvalidArgument, errdefs.CwdMissing},
	{[]string{"chdir to cwd", "not a directory"}, errdefs.InvalidArgument, errdefs.CwdMissing},
	// runc: exec: "x": executable file not found in $PATH; crun: executable file `x` not found in $PATH
	{[]string{"executable file", "not found in $PATH"}, errdefs.InvalidArgument, errdefs.ExecNotFound},
	// runc: exec: "/x": stat /x: no such file or directory
	{[]string{`exec: "`, "no such file or directory"}, errdefs.InvalidArgument, errdefs.ExecNotFound},
	{[]string{`exec: "`, "is a directory"}, errdefs.InvalidArgument, errdefs.ExecIsDirectory},
	{[]string{`exec: "`, "permission denied"}, errdefs.InvalidArgument, errdefs.ExecPermission},
	// runc: exec /x: no such file or directory (an interpreter that is missing)
	{[]string{"exec /", "no such file or directory"}, errdefs.InvalidArgument, errdefs.ExecNotFound},
	{[]string{"exec format error"}, errdefs.InvalidArgument, errdefs.ExecFormat},
	{[]string{"Exec format error"}, errdefs.InvalidArgument, errdefs.ExecFormat},
	// crun: open executable: Permission denied; exec: Permission denied
	{[]string{"open executable", "Permission denied"}, errdefs.InvalidArgument, errdefs.ExecPermission},
	{[]string{"the path `", "is not executable"}, errdefs.InvalidArgument, errdefs.ExecPermission},
	{[]string{"exec container process", "No such file or directory"}, errdefs.InvalidArgument, errdefs.ExecNotFound},
	{[]string{"exec container process", "Permission denied"}, errdefs.InvalidArgument, errdefs.ExecPermission},
	{[]string{"unable to find user"}, errdefs.InvalidArgument, errdefs.UserUnknown},
	{[]string{"container does not exist"}, errdefs.NotFound, errdefs.NoSuchContainer},
	{[]string{"the container", "does not exist"}, errdefs.NotFound, errdefs.NoSuchContainer},
	{[]string{"with given ID already exists"}, errdefs.AlreadyExists, errdefs.NameTaken},
	{[]string{"id already in use"}, errdefs.AlreadyExists, errdefs.NameTaken},
	{[]string{"cannot start an already running container"}, errdefs.FailedPrecondition, errdefs.AlreadyStarted},
	{[]string{"cannot exec in a paused container"}, errdefs.Conflict, errdefs.Paused},
	{[]string{"cannot exec", "stopped container"}, errdefs.Conflict, errdefs.NotRunning},
	{[]string{"container not running"}, errdefs.Conflict, errdefs.NotRunning},
	{[]string{"the container", "is not running"}, errdefs.Conflict, errdefs.NotRunning},
}

// classify gives a foreign runtime's error a kind and a code, if its cause is
// one that we know.
func classify(text string) errdefs.Wire {
	for _, row := range texts {
		if hasAll(text, row.parts) {
			return errdefs.Wire{Kind: row.kind, Code: row.code, Subject: subject(text, row.code), Text: text}
		}
	}
	return errdefs.Wire{Text: text}
}

func hasAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// subject finds what the error is about in the quotes behind the word that
// introduces it.
func subject(text string, code errdefs.Code) string {
	switch code {
	case errdefs.ExecNotFound, errdefs.ExecIsDirectory, errdefs.ExecPermission, errdefs.ExecFormat:
		for _, q := range [][2]string{{`exec: "`, `"`}, {"executable file `", "`"}, {"the path `", "`"}, {"exec ", ":"}} {
			if _, after, found := strings.Cut(text, q[0]); found {
				name, _, _ := strings.Cut(after, q[1])
				return name
			}
		}
	case errdefs.CwdMissing:
		if _, after, found := strings.Cut(text, `("`); found {
			name, _, _ := strings.Cut(after, `"`)
			return name
		}
	}
	return ""
}
