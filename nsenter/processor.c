// The processor that the parent runs on. What it does is one thing after the other,
// on threads that Go hands its work to and fro between. Each handing over may wake
// another processor, which is a microsecond by itself, but 10 to 100 where an
// interrupt of another processor goes through a hypervisor. There all of Go's threads
// stay on the one that they were started on: 5 to 10 % of a run. Where more is to be
// run than there are processors they would only wait there, 4 % longer for 16 runs at
// once, and nothing is bound.
//
// What is started by such a thread would stay there, too, and what waits for long
// should not be there for ever: fork with the thread unbound, and unbind all before
// anything that lasts. None of this is worth an error: what stays bound is slower.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "begin.h"

static cpu_set_t given, own;
static int bound;

/* running returns how many threads run or could, or 0 if nobody says: the number
 * before the slash of /proc/loadavg, proc(5). */
static int running(void)
{
	char text[64];
	char *slash;
	ssize_t n;
	int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	if ((slash = strchr(text, '/')) == NULL)
		return 0;
	while (slash > text && slash[-1] != ' ')
		slash--;
	return atoi(slash);
}

void bind_processor(void)
{
	int here = sched_getcpu();

	/* With more than 1,024 processors this fails, and nothing is bound. */
	if (here < 0 || sched_getaffinity(0, sizeof given, &given) < 0 || CPU_COUNT(&given) < 2)
		return;
	if (running() > CPU_COUNT(&given))
		return;
	CPU_ZERO(&own);
	CPU_SET(here, &own);
	bound = sched_setaffinity(0, sizeof own, &own) == 0;
}

/* unbind gives a thread back what this program was started with, or every processor
 * that it may have, if that is none of them any more. */
static int unbind(pid_t thread)
{
	unsigned char every[sizeof given];

	if (sched_setaffinity(thread, sizeof given, &given) == 0)
		return 1;
	memset(every, 0xff, sizeof every);
	return sched_setaffinity(thread, sizeof every, (const cpu_set_t *)every) == 0;
}

int unbind_thread(void) { return bound && unbind(0); }

int bind_thread(void) { return bound && sched_setaffinity(0, sizeof own, &own) == 0; }

static int is_bound(pid_t thread)
{
	cpu_set_t now;

	return sched_getaffinity(thread, sizeof now, &now) == 0 && CPU_EQUAL(&now, &own);
}

/* unbind_listed unbinds the threads of a directory and returns how many it was. */
static int unbind_listed(DIR *tasks)
{
	struct dirent *entry;
	pid_t thread;
	int unbound = 0;

	while ((entry = readdir(tasks)) != NULL) {
		thread = atoi(entry->d_name);
		if (thread > 0 && is_bound(thread) && unbind(thread) && !is_bound(thread))
			unbound++;
	}
	return unbound;
}

int unbind_all(void)
{
	DIR *tasks;

	if (!bound || (tasks = opendir("/proc/self/task")) == NULL)
		return 0;
	/* Until there is none: a thread may have been made by one that was not yet unbound. */
	while (unbind_listed(tasks) > 0)
		rewinddir(tasks);
	closedir(tasks);
	bound = 0;
	return 1;
}
