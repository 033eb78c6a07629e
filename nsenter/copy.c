/*
 * tmpcopyup, runc's extension: a tmpfs starts with what the image has there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stage.h"

#define MAX_DEPTH 128 /* of directories; the image decides it */

static int copy_directory(int from, int to, int depth);

static int copy_content(int from, int to, const char *name)
{
	int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	int target = source < 0 ? -1 : openat(to, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
	ssize_t n = -1;
	if (target >= 0)
		while ((n = sendfile(target, source, NULL, 1 << 20)) > 0)
			;
	close_fd(target);
	close_fd(source);
	return n == 0 ? 0 : -1;
}

static int copy_link(int from, int to, const char *name)
{
	char text[PATH_MAX];
	ssize_t length = readlinkat(from, name, text, sizeof(text) - 1);
	if (length < 0)
		return -1;
	text[length] = '\0';
	return symlinkat(text, to, name);
}

static int copy_below(int from, int to, const char *name, int depth)
{
	if (mkdirat(to, name, 0700) < 0)
		return -1;
	int source = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int target = source < 0 ? -1 : openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int result = target < 0 ? -1 : copy_directory(source, target, depth + 1);
	close_fd(target);
	close_fd(source);
	return result;
}

static int copy_entry(int from, int to, const char *name, int depth)
{
	struct stat st;
	int result;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if (S_ISDIR(st.st_mode))
		result = copy_below(from, to, name, depth);
	else if (S_ISREG(st.st_mode))
		result = copy_content(from, to, name);
	else if (S_ISLNK(st.st_mode))
		result = copy_link(from, to, name);
	else
		result = mknodat(to, name, st.st_mode, st.st_rdev);
	/* The owner first: a change of it takes the set-id bits away. */
	if (result < 0 || fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if (!S_ISLNK(st.st_mode) && fchmodat(to, name, st.st_mode & 07777, 0) < 0)
		return -1;
	struct timespec times[2] = { st.st_atim, st.st_mtim };
	return utimensat(to, name, times, AT_SYMLINK_NOFOLLOW);
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int copy_directory(int from, int to, int depth)
{
	char buffer[2048] __attribute__((aligned(8)));
	long n;
	if (depth > MAX_DEPTH) {
		errno = ELOOP;
		return -1;
	}
	while ((n = syscall(SYS_getdents64, from, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < n;) {
			struct directory_entry *entry = (void *)(buffer + at);
			if (!is_dots(entry->name) && copy_entry(from, to, entry->name, depth) < 0)
				return -1;
			at += entry->length;
		}
	}
	return n < 0 ? -1 : 0;
}

/* SLOT_TARGET is still the covered directory; the path leads to its cover. */
int op_copy_up(struct stage *s, const struct plan_op *op)
{
	int cover = resolve(s, op_text(s, op, 0), false);
	int to = cover < 0 ? -1 : openat(cover, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int from = to < 0 ? -1 : openat(s->slots[SLOT_TARGET], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result = from < 0 ? -1 : copy_directory(from, to, 0);
	close_fd(from);
	close_fd(to);
	close_fd(cover);
	return result;
}
