// The page that Go's heap begins in. A run touches some 170 of its 4 KiB pages,
// each of which is a page fault: 0.5 µs on most machines, but 10 to 20 where a
// hypervisor shadows page tables, and then two milliseconds of a run's twenty.
// There the first area that Go maps for its heap asks for a huge page, which is
// one fault and 2 MiB to clear. It is a wish: without such a page, or where
// /sys/kernel/mm/transparent_hugepage/enabled says never, all is as it was.
//
// Go maps memory by the C library's mmap in programs with cgo, and the linker
// sends that call here (--wrap=mmap in the Makefile; without it nobody calls this).
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>

#define PAGE 4096
#define DEAR 4000		 /* nanoseconds */
#define HEAP_AREA ((size_t)4 << 20) /* what Go maps of an arena at a time */

__attribute__((weak)) void *__real_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);

/* dear_faults touches two pages that nobody has touched. */
static int dear_faults(void)
{
	static char fresh[3 * PAGE];
	volatile char *touched = fresh;
	struct timespec before, after;

	clock_gettime(CLOCK_MONOTONIC, &before);
	touched[PAGE] = 1;
	touched[2 * PAGE] = 1;
	clock_gettime(CLOCK_MONOTONIC, &after);
	return (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec > 2 * DEAR;
}

void *__wrap_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	void *area = __real_mmap(addr, length, prot, flags, fd, offset);

	if (length == HEAP_AREA && (flags & MAP_FIXED) && prot == (PROT_READ | PROT_WRITE) &&
	    area != MAP_FAILED && dear_faults())
		madvise(area, length, MADV_HUGEPAGE);
	return area;
}
