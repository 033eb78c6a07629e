// The thread that Go starts first, sysmon, looks after the others every 20 µs at
// first. For a program that runs for milliseconds on one of Go's processors it has
// next to nothing to do, and where a timer's interrupt is dear it takes half of a
// processor, which the stage needs. It gets a timer slack (prctl(2),
// PR_SET_TIMERSLACK), by which its sleeps become as long. What else may have to wait
// that long is a goroutine beside one that is in a system call, twice.
//
// A thread has the slack of the one that made it. Ours is as before afterwards:
// the container's processes get it from us.
//
// The linker sends calls of pthread_create here (--wrap in the Makefile; without it
// nobody calls this).
#include <pthread.h>
#include <sys/prctl.h>

#include "begin.h"

#define SLACK 1000000 /* nanoseconds */

__attribute__((weak)) int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
						void *(*start)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	static int started; /* by Go's first thread, while there is no other */
	int failed, before;

	unlimit_files();
	if (started || (before = prctl(PR_GET_TIMERSLACK)) <= 0)
		return __real_pthread_create(thread, attr, start, arg);
	started = 1;
	prctl(PR_SET_TIMERSLACK, SLACK);
	failed = __real_pthread_create(thread, attr, start, arg);
	prctl(PR_SET_TIMERSLACK, (unsigned long)before);
	return failed;
}
