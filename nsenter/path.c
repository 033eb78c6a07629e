/*
 * Paths inside the container's root. The root's content is the container's:
 * any component may be a link to anywhere, and may change while we look. So
 * every path is resolved to a descriptor as if SLOT_ROOT were /, and all work
 * is done on the descriptor (CVE-2019-19921, CVE-2021-30465, CVE-2024-45310).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "stage.h"

#define MAX_LINKS 40 /* as the kernel's MAXSYMLINKS */
#define MAX_RETRIES 64
#define PROC_ROOT_INODE 1 /* the kernel's own name is PROC_ROOT_INO */

void close_fd(int fd)
{
	int saved = errno;
	if (fd >= 0)
		close(fd);
	errno = saved;
}

bool on_file_system(int fd, long magic)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && (long)fs.f_type == magic;
}

/* Opens an O_PATH descriptor for real, by the host's procfs. */
int reopen(struct stage *s, int fd, int flags)
{
	char link[32];
	snprintf(link, sizeof(link), "fd/%d", fd);
	return openat(s->slots[SLOT_SELF], link, flags | O_CLOEXEC);
}

/* openat2 is the kernel's own safe walk (5.6). EAGAIN means that something was
 * renamed or mounted meanwhile. */
static int kernel_resolve(int root, const char *path, bool no_symlinks)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (no_symlinks ? RESOLVE_NO_SYMLINKS : 0),
	};
	for (int i = 0; i < MAX_RETRIES; i++) {
		int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN)
			return fd;
	}
	return -1;
}

/* The state of our own walk: `done` has only plain components, so it can be
 * walked again from the root when a ".." is met. */
struct walk {
	int root;
	int dir;
	char done[PATH_MAX];
	char todo[2 * PATH_MAX];
	int links;
	bool made;
};

/* Takes the first component off todo into name. False at the end. */
static bool next_component(struct walk *w, char name[NAME_MAX + 1], bool *too_long)
{
	char *from = w->todo + strspn(w->todo, "/");
	size_t length = strcspn(from, "/");
	*too_long = length > NAME_MAX;
	if (length == 0 || *too_long)
		return false;
	memcpy(name, from, length);
	name[length] = '\0';
	from += length;
	from += strspn(from, "/");
	memmove(w->todo, from, strlen(from) + 1);
	return true;
}

static int enter(struct walk *w, int dir)
{
	close_fd(w->dir);
	w->dir = dir;
	return dir < 0 ? -1 : 0;
}

static int from_root(struct walk *w)
{
	return enter(w, openat(w->root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

/* "..": walks done again without its last component. Never above the root. */
static int step_up(struct walk *w)
{
	char *slash = strrchr(w->done, '/');
	if (slash)
		*slash = '\0';
	if (from_root(w) < 0)
		return -1;
	char *at = w->done;
	while (*at == '/') {
		char name[NAME_MAX + 1];
		size_t length = strcspn(++at, "/");
		memcpy(name, at, length);
		name[length] = '\0';
		if (enter(w, openat(w->dir, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC)) < 0)
			return -1;
		at += length;
	}
	return 0;
}

/* A link: its text goes in front of what is left to walk. Magic links of
 * procfs are plain text here and lead nowhere outside. */
static int step_link(struct walk *w, int link)
{
	char text[PATH_MAX];
	ssize_t length = readlinkat(link, "", text, sizeof(text) - 1);
	size_t rest = strlen(w->todo);
	if (length < 0)
		return -1;
	if (++w->links > MAX_LINKS) {
		errno = ELOOP;
		return -1;
	}
	if ((size_t)length + rest + 2 > sizeof(w->todo)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memmove(w->todo + length + 1, w->todo, rest + 1);
	memcpy(w->todo, text, (size_t)length);
	w->todo[length] = '/';
	if (text[0] != '/')
		return 0;
	w->done[0] = '\0';
	return from_root(w);
}

/* A plain component: it becomes the place we are at. */
static int step_into(struct walk *w, const char *name, int fd)
{
	size_t used = strlen(w->done), length = strlen(name);
	if (used + length + 2 > sizeof(w->done)) {
		close_fd(fd);
		errno = ENAMETOOLONG;
		return -1;
	}
	w->done[used] = '/';
	memcpy(w->done + used + 1, name, length + 1);
	return enter(w, fd);
}

static int make(struct walk *w, const char *name, int target, unsigned mode)
{
	w->made = true;
	if (w->todo[0] != '\0' || target == TARGET_DIRECTORY)
		return mkdirat(w->dir, name, w->todo[0] != '\0' ? 0755 : mode);
	int fd = openat(w->dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, mode);
	close_fd(fd);
	return fd < 0 ? -1 : 0;
}

static int step(struct walk *w, const char *name, bool no_symlinks, int target, unsigned mode)
{
	struct stat st;
	w->made = false;
	int fd = openat(w->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && target >= 0) {
		if (make(w, name, target, mode) < 0 && errno != EEXIST)
			return -1;
		fd = openat(w->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	}
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0 || (S_ISLNK(st.st_mode) && no_symlinks)) {
		close_fd(fd);
		errno = ELOOP;
		return -1;
	}
	if (!S_ISLNK(st.st_mode))
		return step_into(w, name, fd);
	int result = step_link(w, fd);
	close_fd(fd);
	return result;
}

/* Our own walk, one component at a time. It is the way where openat2 is
 * missing, and the only one that makes what is not there (target >= 0),
 * through links that dangle too, as runc does. */
static int walk(struct stage *s, const char *path, bool no_symlinks, int target, unsigned mode)
{
	struct walk w = { .root = s->slots[SLOT_ROOT], .dir = -1 };
	char name[NAME_MAX + 1];
	bool too_long = false;
	size_t length = strlen(path);

	if (length >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(w.todo, path, length + 1);
	int result = from_root(&w);
	while (result == 0 && next_component(&w, name, &too_long)) {
		if (strcmp(name, ".") == 0)
			continue;
		result = strcmp(name, "..") == 0 ? step_up(&w) : step(&w, name, no_symlinks, target, mode);
	}
	if (result == 0 && too_long) {
		errno = ENAMETOOLONG;
		result = -1;
	}
	if (result < 0) {
		close_fd(w.dir);
		return -1;
	}
	s->target_made = w.made;
	return w.dir;
}

/* Returns an O_PATH descriptor of what path names inside the root. */
int resolve(struct stage *s, const char *path, bool no_symlinks)
{
	path += strspn(path, "/");
	int fd = kernel_resolve(s->slots[SLOT_ROOT], *path ? path : ".", no_symlinks);
	if (fd < 0 && errno == ENOSYS)
		fd = walk(s, path, no_symlinks, -1, 0);
	return fd;
}

/* Makes a directory of which all but the last component is there, as it nearly always
 * is. What is in its place, as a link that dangles, is for a walk to find out. */
static int make_last(struct stage *s, const char *path, bool no_symlinks, unsigned mode)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int fd = -1;

	if (slash == NULL || slash == path || (size_t)(slash - path) >= sizeof(parent))
		return -1;
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = '\0';
	int dir = kernel_resolve(s->slots[SLOT_ROOT], parent, no_symlinks);
	if (dir >= 0 && mkdirat(dir, slash + 1, mode) == 0) {
		s->target_made = true;
		fd = openat(dir, slash + 1, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
	}
	close_fd(dir);
	return fd;
}

/* As resolve, and makes what is not there. */
int resolve_or_make(struct stage *s, const char *path, bool no_symlinks, int target, unsigned mode)
{
	s->target_made = false;
	int fd = resolve(s, path, no_symlinks);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	if (target == TARGET_DIRECTORY)
		fd = make_last(s, path, no_symlinks, mode);
	return fd >= 0 ? fd : walk(s, path, no_symlinks, target, mode);
}

/* Returns the directory that is to hold path's last component, and that name. */
int resolve_parent(struct stage *s, const char *path, const char **name)
{
	char directory[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	*name = slash ? slash + 1 : path;
	if (length >= sizeof(directory) || (*name)[0] == '\0') {
		errno = EINVAL;
		return -1;
	}
	memcpy(directory, path, length);
	directory[length] = '\0';
	return resolve_or_make(s, directory, false, TARGET_DIRECTORY, 0755);
}

/* Opens the procfs that is mounted at /proc in the root, if that is all of one. */
int open_procfs(struct stage *s)
{
	struct stat st;
	int proc = resolve(s, "/proc", true);
	if (proc >= 0 && fstat(proc, &st) == 0 && st.st_ino == PROC_ROOT_INODE && on_file_system(proc, PROC_SUPER_MAGIC))
		return proc;
	close_fd(proc);
	return -1;
}

/* Opens what is in a procfs: of its own tree, and nothing that is mounted in there. */
int open_of_procfs(int proc, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	return (int)syscall(SYS_openat2, proc, path, &how, sizeof(how));
}
