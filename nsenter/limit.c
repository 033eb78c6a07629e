// Go looks at its start for a limit of its cgroup to its processors, also if it has
// been told how many it gets (schedinit in runtime/proc.go): it opens five files, among
// them /proc/self/mountinfo, for which the kernel writes down all mounts of the host.
// What cannot be opened it does without, as on a host without cgroups, so that until
// Go starts its first thread, by watcher.c, no descriptor beyond stdio's can be had.
// Those that there are stay. The size of a huge page, which it asks for too, is then
// unknown to it and not taken into account.
#include <sys/resource.h>

#include "begin.h"

static struct rlimit before;
static int limited;

void limit_files(void)
{
	struct rlimit stdio;

	if (getrlimit(RLIMIT_NOFILE, &before) < 0 || before.rlim_cur <= STDIO)
		return;
	stdio = before;
	stdio.rlim_cur = STDIO;
	limited = setrlimit(RLIMIT_NOFILE, &stdio) == 0;
}

void unlimit_files(void)
{
	if (limited)
		setrlimit(RLIMIT_NOFILE, &before);
	limited = 0;
}
