// The processor that the parent runs on. What it does is one thing after the other,
// on threads that Go hands its work to and fro between. Each handing over may wake
// another processor, which is a microsecond on most machines, but up to a hundred
// where an interrupt of another processor goes through a hypervisor. There all of
// Go's threads stay on the one that they were started on: 5 to 10 % of a run.
//
// What is started by such a thread would stay there, too, and what waits for long
// should not be there for ever: fork with the thread unbound, and unbind all before
// anything that lasts.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "begin.h"

static cpu_set_t given, own;
static int bound;

void bind_processor(void)
{
	int here = sched_getcpu();

	/* With more than 1,024 processors this fails, and nothing is bound. */
	if (here < 0 || sched_getaffinity(0, sizeof given, &given) < 0 || CPU_COUNT(&given) < 2)
		return;
	CPU_ZERO(&own);
	CPU_SET(here, &own);
	bound = sched_setaffinity(0, sizeof own, &own) == 0;
}

static int set(pid_t thread, const cpu_set_t *processors)
{
	return bound && sched_setaffinity(thread, sizeof *processors, processors) < 0 ? errno : 0;
}

int unbind_thread(void) { return set(0, &given); }

int bind_thread(void) { return set(0, &own); }

/* unbind_listed unbinds the threads of a directory and returns how many it was, or
 * -1 for an error. */
static int unbind_listed(DIR *tasks)
{
	struct dirent *entry;
	cpu_set_t now;
	pid_t thread;
	int changed = 0;

	while ((entry = readdir(tasks)) != NULL) {
		thread = atoi(entry->d_name);
		if (thread <= 0 || sched_getaffinity(thread, sizeof now, &now) < 0 || !CPU_EQUAL(&now, &own))
			continue; /* or it is gone */
		if (sched_setaffinity(thread, sizeof given, &given) == 0)
			changed++;
		else if (errno != ESRCH)
			return -1;
	}
	return changed;
}

int unbind_all(void)
{
	DIR *tasks;
	int changed, failed = 0;

	if (!bound)
		return 0;
	tasks = opendir("/proc/self/task");
	if (tasks == NULL)
		return errno;
	/* Until there is none: a thread may have been made by one that was not yet unbound. */
	while ((changed = unbind_listed(tasks)) > 0)
		rewinddir(tasks);
	if (changed < 0)
		failed = errno;
	closedir(tasks);
	bound = failed != 0;
	return failed;
}
