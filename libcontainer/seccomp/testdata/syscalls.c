/* Prints syscalls.txt: what libseccomp knows, for TestSyscallsAreLibseccomps. */
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMES 4096

static const struct {
	const char *name;
	uint32_t token;
} archs[] = {
	{ "amd64", SCMP_ARCH_X86_64 },   { "386", SCMP_ARCH_X86 }, { "x32", SCMP_ARCH_X32 },
	{ "arm64", SCMP_ARCH_AARCH64 }, { "arm", SCMP_ARCH_ARM }, { "riscv64", SCMP_ARCH_RISCV64 },
};

/* Where an architecture's numbers lie: below 0 are libseccomp's own for calls that
 * it does not have. */
static const struct {
	int first, last;
} ranges[] = {
	{ -20000, 1023 },
	{ 0x0f0000, 0x0f00ff },		/* ARM's private calls */
	{ 0x40000000, 0x400003ff },	/* x32 */
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static char *names[MAX_NAMES];
static size_t count;

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void collect(uint32_t arch, int first, int last)
{
	for (int number = first; number <= last; number++) {
		char *name = seccomp_syscall_resolve_num_arch(arch, number);
		if (name == NULL)
			continue;
		if (count == MAX_NAMES)
			exit(1);
		names[count++] = name;
	}
}

int main(void)
{
	const struct scmp_version *version = seccomp_version();

	printf("libseccomp-%u.%u.%u", version->major, version->minor, version->micro);
	for (size_t a = 0; a < COUNT(archs); a++) {
		printf(" %s", archs[a].name);
		for (size_t r = 0; r < COUNT(ranges); r++) {
			collect(archs[a].token, ranges[r].first, ranges[r].last);
			qsort(names, count, sizeof(names[0]), by_name);
			size_t kept = 0;
			for (size_t n = 0; n < count; n++)
				if (kept == 0 || strcmp(names[n], names[kept - 1]) != 0)
					names[kept++] = names[n];
			count = kept;
		}
	}
	putchar('\n');
	for (size_t n = 0; n < count; n++) {
		printf("%s", names[n]);
		for (size_t a = 0; a < COUNT(archs); a++)
			printf(" %d", seccomp_syscall_resolve_name_arch(archs[a].token, names[n]));
		putchar('\n');
	}
	return 0;
}
