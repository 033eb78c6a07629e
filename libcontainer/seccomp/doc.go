// Package seccomp compiles an OCI seccomp profile into a classic BPF program.
//
// # Shape of a filter
//
// Per kernel architecture (struct seccomp_data.arch) the system call numbers
// from 0 to 2^32-1 are cut into blocks in which every call is treated alike;
// the program is a binary search for the block. Docker's default profile has
// about 400 names and about 50 blocks, so a call passes eight instructions or
// so where a chain of comparisons passes hundreds, and the kernel, which at load
// time runs the filter once for every number to fill its own cache, loads it
// sooner.
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
// # No cache
//
// Names are resolved by libseccomp in one call per architecture. Compiling the
// profile of Debian's dockerd takes less time (see BenchmarkCompile) than
// finding a compiled one would: encoding the profile for its hash, hashing,
// opening and verifying a file. So there is no cache to go stale.
//
// # Absent on purpose
//
// Loading (nsenter does it, last of all), the listener's protocol
// (libcontainer), SECCOMP_FILTER_FLAG_TSYNC (the loading process has one
// thread), architectures that cannot occur on this kernel.
//
// Start reading at Compile.
package seccomp
