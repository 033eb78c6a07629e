// Package harness starts private instances of the real binaries for the black
// box tests and looks after them: own directories, socket, bridge and subnet.
//
//	stack := harness.New(t, harness.Options{})   // supervisor, engined, busybox image
//	stack.CLI(t).Run("run", "--rm", "busybox", "true")
//	stack.Engined.Kill(); stack.StartEngined()   // kill -9, and again
//
// Everything of an instance lies below one short directory in /tmp (a socket's
// path has at most 107 bytes). At the end of the test the stack is stopped and
// the machine compared with what it was before: processes, mounts, cgroups,
// links, tables. If the test failed, the daemons' logs are shown.
//
// The binaries come from bin/ of this tree, or from $ENGINED_BIN.
//
// [NewDockerd] starts Debian's dockerd likewise, as the reference for
// differential tests.
//
// Start reading at [New].
package harness
