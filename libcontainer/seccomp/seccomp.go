package seccomp

/*
#cgo LDFLAGS: -lseccomp
#include <seccomp.h>
*/
import "C"

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

// Filter is a compiled profile.
type Filter struct {
	Program []byte // array of struct sock_filter, little endian
	Flags   uint   // SECCOMP_FILTER_FLAG_* for seccomp(2); NEW_LISTENER is the caller's, by Notify
	Notify  bool   // some rule notifies: the listener's descriptor goes to ListenerPath
}

// Compile turns a profile into a filter for this machine.
func Compile(profile *specs.LinuxSeccomp) (Filter, error) {
	return Filter{}, errdefs.NotImplemented.Errorf("seccomp: being written")
}

// LibraryVersion is that of libseccomp, as 2.5.4.
func LibraryVersion() string {
	v := C.seccomp_version()
	return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.micro)
}
