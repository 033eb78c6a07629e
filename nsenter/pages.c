// What page faults cost, and how a run has fewer of them where that is felt: 0.5 µs
// without a hypervisor, 1.3 where it nests page tables, 10 to 20 where it shadows them.
//
// A run touches some 170 of the 4 KiB pages of Go's heap. Where faults are dear the
// first area that Go maps for its heap asks for a huge page, which is one fault and 2
// MiB to clear: elsewhere that takes as long as the faults, 0.3 to 0.5 ms. It is a
// wish: without such a page, or where /sys/kernel/mm/transparent_hugepage/enabled says
// never, all is as it was. Go maps memory by the C library's mmap in programs with
// cgo, and the linker sends that call here (--wrap=mmap in the Makefile; without it
// nobody calls this).
//
// And it faults 70 times on code and constants, which are in the page cache: where
// faults are dear they are all mapped at once, 0.2 µs for each of 1,260 pages, which
// elsewhere takes longer than what it saves.
#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>

#include "begin.h"

#define PAGE 4096UL
#define HEAP_AREA ((size_t)4 << 20) /* what Go maps of an arena at a time */
#define FAULTS 3 /* that are timed */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* 5.14 */
#endif

__attribute__((weak)) void *__real_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);

static long nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* The least of a few: a page that the hypervisor itself has not got takes it 150 µs. */
long fault_cost(void)
{
	static long known;
	static char fresh[(FAULTS + 1) * PAGE];
	volatile char *touched = fresh;
	long before, after;
	int i;

	if (known != 0)
		return known;
	before = nanoseconds();
	for (i = 1; i <= FAULTS; i++) {
		touched[i * PAGE] = 1;
		after = nanoseconds();
		if (known == 0 || after - before < known)
			known = after - before;
		before = after;
	}
	known++; /* asked once, whatever the clock says */
	return known;
}

void fill_in_program(void)
{
	const ElfW(Phdr) *part = (const void *)getauxval(AT_PHDR);
	unsigned long parts = getauxval(AT_PHNUM), start;

	for (; part != NULL && parts > 0; part++, parts--) {
		if (part->p_type != PT_LOAD || (part->p_flags & PF_W))
			continue;
		start = part->p_vaddr & -PAGE; /* ocirun is linked to where it is loaded */
		madvise((void *)start, part->p_vaddr + part->p_filesz - start, MADV_POPULATE_READ);
	}
}

void *__wrap_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	void *area = __real_mmap(addr, length, prot, flags, fd, offset);

	if (length == HEAP_AREA && (flags & MAP_FIXED) && prot == (PROT_READ | PROT_WRITE) &&
	    area != MAP_FAILED && fault_cost() >= DEAR)
		madvise(area, length, MADV_HUGEPAGE);
	return area;
}
