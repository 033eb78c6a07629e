// The program's entry, before Go's: a run of ocirun does one thing after the
// other, and what processors beyond one bring are threads to start. Go takes
// GOMAXPROCS from the vector that the kernel laid out, before any Go code runs,
// where a variable set by setenv(3) is not. The linker sends the C library's call
// of main and pthread_getattr_np here (--wrap in the Makefile; without it nobody
// calls this).
#include <alloca.h>
#include <pthread.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "begin.h"

#define STACK (256UL << 10) /* of the first thread, for Go */

static const char one[] = "GOMAXPROCS=1";

__attribute__((weak)) int __real_main(int argc, char **argv, char **envp);

/* prepare spares Go's start what it can do without. */
static void prepare(void)
{
#ifdef M_ARENA_MAX
	/* Go's threads give back what they were started with, and for that each would
	 * map an arena of its own, 128 MiB of addresses, and touch three pages of it. */
	mallopt(M_ARENA_MAX, 1);
#endif
	if (fault_cost() >= FELT)
		bind_processor();
	if (fault_cost() >= DEAR)
		fill_in_program();
	limit_files();
}

/* With glibc Go asks once how far the first thread's stack reaches, which that would read
 * out of /proc/self/maps. What Go needs of it is certainly there. */
int __wrap_pthread_getattr_np(pthread_t thread, pthread_attr_t *attr)
{
	unsigned long here = (unsigned long)__builtin_frame_address(0);

	(void)thread;
	return pthread_attr_setstack(attr, (void *)((here - STACK) & -4096UL), STACK);
}

int __wrap_main(int argc, char **argv, char **envp)
{
	char **e, **vector;
	size_t before, after;

	prepare();
	for (e = envp; *e != NULL; e++)
		if (strncmp(*e, one, strlen("GOMAXPROCS=")) == 0)
			return __real_main(argc, argv, envp);
	/* Behind the environment are pairs of words up to AT_NULL: getauxval(3). */
	for (e++; *e != NULL; e += 2)
		;
	before = envp - argv;
	after = e + 2 - envp;
	vector = alloca((before + 1 + after) * sizeof *vector);
	memcpy(vector, argv, before * sizeof *vector);
	vector[before] = (char *)one;
	memcpy(vector + before + 1, envp, after * sizeof *vector);
	return __real_main(argc, vector, vector + before);
}
