// Package seccomp compiles an OCI seccomp profile into a classic BPF program.
//
// # Shape of a filter
//
// Per kernel architecture (struct seccomp_data.arch) the system call numbers
// from 0 to 2^32-1 are cut into blocks in which every call is treated alike;
// the program is a binary search for the block. The profile of Debian's dockerd
// has about 400 names and, on x86-64 with x32, 153 blocks: a call passes 11
// instructions where a chain of comparisons passes hundreds, and the kernel,
// which at load time runs the filter once for every number to fill its own
// cache, loads it sooner.
//
// # Invariants
//
//   - The meaning is that of runc with libseccomp: a rule without conditions
//     beats those with conditions, the first of two equal ones wins, a rule
//     with the default's action is no rule, names unknown to libseccomp are
//     skipped, conditions on one argument index are alternatives.
//   - Numbers beyond the largest one the profile names answer ENOSYS if the
//     default is to refuse: a C library then tries the older call (runc's
//     "enosys stub").
//   - x86-64 callers with x32's number bit are killed unless the profile lists
//     x32 or the ENOSYS rule above answers first, as with libseccomp.
//   - i386's socketcall and ipc are opened for the calls that they multiplex.
//
// # Numbers
//
// syscalls.txt has what libseccomp knows; the library itself is not linked.
// `go test -run SyscallsAreLibseccomps -update` writes it anew.
//
// # Cache
//
// Compiling the profile of Debian's dockerd takes 0.2-0.9 ms, finding the
// compiled filter by the profile's hash 0.03-0.15 (BenchmarkCompile,
// BenchmarkCached). A cached file is trusted: its directory is the runtime's
// root, which only its user can write.
//
// # Absent on purpose
//
// Loading (nsenter does it, last of all), the listener's protocol
// (libcontainer), SECCOMP_FILTER_FLAG_TSYNC (the loading process has one
// thread), architectures that cannot occur on this kernel.
//
// Start reading at Compile; Cached is what a start calls.
package seccomp
