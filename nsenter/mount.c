/*
 * The container's root: mounts, devices, masks, pivot_root. Mounts are made on
 * descriptors, never on paths: either by move_mount (5.2), or by mount(2) onto
 * /proc/self/fd/N, with /proc still the host's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "mountapi.h"
#include "stage.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000 /* 5.14 */
#endif
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

#define LINK_TRIES 100 /* each loses only to another container's stage that won */

struct fd_path {
	char text[32];
};

static struct fd_path fd_path(int fd)
{
	struct fd_path path;
	snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
	return path;
}

/* Attaches the detached mount `tree` to `target`. */
static int attach(int tree, int target)
{
	return kernel_move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* Mounts what `source` is onto `target`. */
int bind_onto(struct stage *s, int source, int target)
{
	(void)s;
	int tree = kernel_open_tree(source, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int result = tree < 0 ? -1 : attach(tree, target);
	close_fd(tree);
	if (result < 0 && errno == ENOSYS)
		return mount(fd_path(source).text, fd_path(target).text, NULL, MS_BIND, NULL);
	return result;
}

/* Nothing that is mounted in here may reach the host, unless the spec wants it. */
int op_propagation(struct stage *s, const struct plan_op *op)
{
	return mount(NULL, op_text(s, op, 0), NULL, op->num[0], NULL);
}

/* pivot_root wants a mount point: the root is bound onto itself. Without a
 * mount namespace the parent did it, so that it can take it away again. */
int op_root(struct stage *s, const struct plan_op *op)
{
	const char *root = op_text(s, op, 0);
	if (!(op->flags & FLAG_MOUNTED) && mount(root, root, NULL, MS_BIND | MS_REC, NULL) < 0)
		return -1;
	return keep(s, SLOT_ROOT, open(root, O_PATH | O_DIRECTORY | O_CLOEXEC));
}

int op_root_here(struct stage *s, const struct plan_op *op)
{
	(void)op;
	return keep(s, SLOT_ROOT, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

int op_target(struct stage *s, const struct plan_op *op)
{
	const char *path = op_text(s, op, 0);
	int fd = resolve_or_make(s, path, op->flags & FLAG_NO_SYMLINKS, (int)op->num[0], (unsigned)op->num[1]);
	if (fd < 0)
		return fail(s, WHERE_RESOLVE, errno);
	/* A link may lead into /proc, where a mount could fake what the
	 * runtime itself reads and writes there (CVE-2019-16884,
	 * CVE-2023-28642, CVE-2025-52881). */
	if (!(op->flags & FLAG_PROC_INSIDE) && on_file_system(fd, PROC_SUPER_MAGIC)) {
		close_fd(fd);
		return fail(s, WHERE_UNSAFE, EPERM);
	}
	return keep(s, SLOT_TARGET, fd);
}

/* Each network namespace has a sysfs of its own, and the kernel compares a new one
 * with all that there are: 0.25 ms beside 500. Here that is done while nothing else
 * can be; mount(2) finds it first. It is a guess, that sysfs will be mounted and
 * read-only; in vain it takes 0.03 ms, beside 500 that. */
void prepare_sysfs(struct stage *s)
{
	int context = kernel_fsopen("sysfs", FSOPEN_CLOEXEC);
	if (context >= 0 && kernel_fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) == 0 &&
	    kernel_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		s->slots[SLOT_SYSFS] = context;
	else
		close_fd(context);
}

/* While it is there whatever mounts sysfs in the network namespace gets this one, a
 * hook of the parent's, too. */
void drop_sysfs(struct stage *s)
{
	close_fd(s->slots[SLOT_SYSFS]);
	s->slots[SLOT_SYSFS] = -1;
}

int op_mount(struct stage *s, const struct plan_op *op)
{
	const char *data = op_text(s, op, 2);
	char with_mode[PATH_MAX];
	struct stat st;

	if (!(op->num[0] & MS_RDONLY) && strcmp(op_text(s, op, 1), "sysfs") == 0)
		drop_sysfs(s);

	/* runc gives a tmpfs the mode of the directory that it hides. */
	if ((op->flags & FLAG_KEEP_MODE) && !s->target_made && fstat(s->slots[SLOT_TARGET], &st) == 0) {
		int n = snprintf(with_mode, sizeof(with_mode), "mode=%04o%s%s", st.st_mode & 07777, *data ? "," : "", data);
		if (n >= (int)sizeof(with_mode))
			return fail(s, WHERE_OP, ENAMETOOLONG);
		data = with_mode;
	}
	return mount(op_text(s, op, 0), fd_path(s->slots[SLOT_TARGET]).text, op_text(s, op, 1), op->num[0], data);
}

/* A filter may forbid move_mount alone; a detached tree could then not be
 * bound before 6.15. */
static bool can_move(void)
{
	static int answer = -1;
	if (answer < 0)
		answer = kernel_move_mount(-1, "", -1, "", 0) == 0 || errno != ENOSYS;
	return answer;
}

/* A clone of a host path, not mounted anywhere yet. Before 5.2 the slot holds
 * the source itself, and op_attach binds it. */
int op_tree(struct stage *s, const struct plan_op *op)
{
	const char *source = op_text(s, op, 0);
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (op->flags & FLAG_RECURSIVE ? AT_RECURSIVE : 0);
	int fd = -1;
	errno = ENOSYS;
	if (can_move())
		fd = kernel_open_tree(AT_FDCWD, source, flags);
	s->tree_is_source = fd < 0 && errno == ENOSYS;
	if (s->tree_is_source)
		fd = open(source, O_PATH | O_CLOEXEC);
	return keep(s, SLOT_TREE, fd);
}

/* After it SLOT_TREE is the attached mount, for op_attr. */
int op_attach(struct stage *s, const struct plan_op *op)
{
	int target = s->slots[SLOT_TARGET];
	if (!s->tree_is_source && attach(s->slots[SLOT_TREE], target) == 0)
		return 0;
	if (!s->tree_is_source && errno != ENOSYS)
		return -1;
	unsigned long flags = MS_BIND | (op->flags & FLAG_RECURSIVE ? MS_REC : 0);
	if (mount(fd_path(s->slots[SLOT_TREE]).text, fd_path(target).text, NULL, flags, NULL) < 0)
		return -1;
	/* "." of a directory that is covered leads to the cover only for a
	 * path that is looked up anew. */
	return keep(s, SLOT_TREE, resolve(s, op_text(s, op, 0), false));
}

/* The lower attributes have MS_*'s values; these have not. */
static unsigned long as_flags(uint64_t attr)
{
	unsigned long flags = attr & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
	flags |= attr & MOUNT_ATTR_NOATIME ? MS_NOATIME : 0;
	flags |= attr & MOUNT_ATTR_STRICTATIME ? MS_STRICTATIME : 0;
	flags |= attr & MOUNT_ATTR_NODIRATIME ? MS_NODIRATIME : 0;
	flags |= attr & MOUNT_ATTR_NOSYMFOLLOW ? MS_NOSYMFOLLOW : 0;
	return flags;
}

/* mount_setattr for one mount before 5.12: a remount sets all flags anew, so
 * those that the mount has go along. Without them it would lose nosuid, or
 * fail where a user namespace locks it. */
static int remount(int fd, uint64_t set, uint64_t clear)
{
	struct statfs st;
	if (fstatfs(fd, &st) < 0)
		return -1;
	/* statvfs(3): f_flags has MS_*'s values, but for this one. */
	unsigned long flags = (unsigned long)st.f_flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME);
	flags |= st.f_flags & 0x2000 /* ST_NOSYMFOLLOW */ ? MS_NOSYMFOLLOW : 0;
	flags &= ~as_flags(clear);
	if (clear & MOUNT_ATTR__ATIME) { /* relatime is the value 0 of that field */
		flags &= ~(unsigned long)MS_RELATIME;
		flags |= set & (MOUNT_ATTR_NOATIME | MOUNT_ATTR_STRICTATIME) ? 0 : MS_RELATIME;
	}
	flags |= as_flags(set);
	return mount(NULL, fd_path(fd).text, NULL, MS_REMOUNT | MS_BIND | flags, NULL);
}

/* Changes a mount's attributes and propagation, by mount_setattr (5.12). The
 * older remount cannot recurse. */
int op_attr(struct stage *s, const struct plan_op *op)
{
	int fd = s->slots[op->num[3] < SLOT_COUNT ? op->num[3] : SLOT_NONE];
	unsigned recursive = op->flags & FLAG_RECURSIVE ? AT_RECURSIVE : 0;
	struct mount_attr attr = {
		.attr_set = op->num[0],
		.attr_clr = op->num[1],
		.propagation = op->num[2],
	};
	if (kernel_mount_setattr(fd, "", AT_EMPTY_PATH | recursive, &attr) == 0)
		return 0;
	if (errno != ENOSYS)
		return -1;
	if ((op->num[0] | op->num[1]) != 0) {
		if (recursive)
			return fail(s, WHERE_OP, ENOSYS);
		if (remount(fd, op->num[0], op->num[1]) < 0)
			return -1;
	}
	if (op->num[2] == 0)
		return 0;
	return mount(NULL, fd_path(fd).text, NULL, op->num[2] | (recursive ? MS_REC : 0), NULL);
}

static bool is_node(const struct plan_op *op, const struct stat *st)
{
	return (st->st_mode & S_IFMT) == (op->num[0] & S_IFMT) && (S_ISFIFO(st->st_mode) || st->st_rdev == op->num[1]);
}

/* A file of that name that is none of these nodes is an error, if the spec lists the
 * device (config-linux.md, devices); of a default one it is kept. */
static int keep_node(const struct plan_op *op, int parent, const char *name)
{
	struct stat st;
	if (!(op->flags & FLAG_EXACT))
		return 0;
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	errno = EEXIST;
	return is_node(op, &st) ? 0 : -1;
}

/* In a user namespace, the container's or one that the runtime itself is in,
 * mknod is forbidden: the host's node is bound there. */
static int bind_node(struct stage *s, const struct plan_op *op)
{
	struct stat st;
	int source = open(op_text(s, op, 1), O_PATH | O_CLOEXEC);
	if (source >= 0 && (op->flags & FLAG_EXACT) && fstat(source, &st) == 0 && !is_node(op, &st)) {
		close_fd(source);
		errno = ENODEV;
		return -1;
	}
	int target = source < 0 ? -1 : resolve_or_make(s, op_text(s, op, 0), false, TARGET_FILE, 0);
	int result = target < 0 ? -1 : bind_onto(s, source, target);
	close_fd(source);
	close_fd(target);
	return result;
}

int op_mknod(struct stage *s, const struct plan_op *op)
{
	const char *name;
	if (op->flags & FLAG_BIND)
		return bind_node(s, op);
	int parent = resolve_parent(s, op_text(s, op, 0), &name);
	if (parent < 0)
		return fail(s, WHERE_RESOLVE, errno);
	int result = mknodat(parent, name, (mode_t)op->num[0], op->num[1]);
	if (result < 0 && errno == EPERM) {
		close_fd(parent);
		return bind_node(s, op);
	}
	if (result < 0 && errno == EEXIST)
		result = keep_node(op, parent, name);
	else if (result == 0 && (op->num[2] | op->num[3]) != 0)
		result = fchownat(parent, name, (uid_t)op->num[2], (gid_t)op->num[3], AT_SYMLINK_NOFOLLOW);
	close_fd(parent);
	return result;
}

/* Containers that share a rootfs make the same link at the same time: what is
 * there is looked at again after each failure. */
static int replace_link(const char *target, int parent, const char *name)
{
	char there[64];
	for (int i = 0; i < LINK_TRIES; i++) {
		ssize_t n = readlinkat(parent, name, there, sizeof(there));
		if (n < (ssize_t)sizeof(there) && n == (ssize_t)strlen(target) && memcmp(there, target, (size_t)n) == 0)
			return 0;
		if (unlinkat(parent, name, 0) < 0 && errno != ENOENT)
			return -1;
		if (symlinkat(target, parent, name) == 0)
			return 0;
		if (errno != EEXIST)
			return -1;
	}
	errno = EEXIST;
	return -1;
}

int op_symlink(struct stage *s, const struct plan_op *op)
{
	const char *name;
	int parent = resolve_parent(s, op_text(s, op, 1), &name);
	if (parent < 0)
		return fail(s, WHERE_RESOLVE, errno);
	int result = symlinkat(op_text(s, op, 0), parent, name);
	if (result < 0 && errno == EEXIST) {
		result = 0;
		if (op->flags & FLAG_REPLACE)
			result = replace_link(op_text(s, op, 0), parent, name);
	}
	close_fd(parent);
	return result;
}

static bool is_empty(int directory)
{
	char entries[96]; /* room for more than "." and "..", of 24 bytes each */
	return syscall(SYS_getdents64, directory, entries, sizeof(entries)) == 48;
}

/* A directory in which the kernel keeps nothing any more, of the container's procfs
 * (fs/proc/proc_tty.c). A tmpfs would be a super block more for each container, and the
 * kernel looks at all of them whenever a memory cgroup ends. */
static int empty_of_procfs(struct stage *s)
{
	int proc = open_procfs(s);
	int directory = proc < 0 ? -1 : open_of_procfs(proc, "tty/ldisc", O_RDONLY | O_DIRECTORY);
	if (proc >= 0 && directory < 0 && errno == ENOSYS)
		directory = openat(proc, "tty/ldisc", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	close_fd(proc);
	if (directory >= 0 && on_file_system(directory, PROC_SUPER_MAGIC) && is_empty(directory))
		return directory;
	close_fd(directory);
	return -1;
}

/* Mounts what `source` is onto `target`, which `path` leads to, read-only. The older
 * remount is for the one mount, and cannot recurse. */
static int bind_readonly(struct stage *s, int source, int target, const char *path)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	int result = -1;
	int tree = kernel_open_tree(source, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree >= 0 && kernel_mount_setattr(tree, "", AT_EMPTY_PATH, &attr) == 0)
		result = attach(tree, target);
	close_fd(tree);
	if (result < 0 && errno == ENOSYS) {
		result = mount(fd_path(source).text, fd_path(target).text, NULL, MS_BIND | MS_REC, NULL);
		int bound = result < 0 ? -1 : resolve(s, path, false);
		result = bound < 0 ? -1 : remount(bound, MOUNT_ATTR_RDONLY, 0);
		close_fd(bound);
	}
	return result;
}

/* One empty directory hides all that are masked: the first gets the mount itself, the
 * others clones. Where there is no whole procfs it is that of a tmpfs. */
static int mask_directory(struct stage *s, int target, const char *path)
{
	if (s->slots[SLOT_EMPTY] >= 0)
		return bind_onto(s, s->slots[SLOT_EMPTY], target);
	int empty = empty_of_procfs(s);
	if (empty >= 0) {
		int bound = bind_readonly(s, empty, target, path);
		close_fd(empty);
		return bound < 0 ? -1 : keep(s, SLOT_EMPTY, resolve(s, path, false));
	}
	int context = kernel_fsopen("tmpfs", FSOPEN_CLOEXEC);
	int tree = -1;
	if (context >= 0 && kernel_fsconfig(context, FSCONFIG_SET_STRING, "source", "tmpfs", 0) == 0 &&
	    kernel_fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) == 0 &&
	    kernel_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		tree = kernel_fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
	close_fd(context);
	int result = tree < 0 ? -1 : attach(tree, target);
	if (result == 0)
		return keep(s, SLOT_EMPTY, tree);
	close_fd(tree);
	return errno == ENOSYS ? mount("tmpfs", fd_path(target).text, "tmpfs", MS_RDONLY, NULL) : -1;
}

/* The host's /dev/null, not the container's: that one may be a link to a file
 * that the bind would then make writable (CVE-2025-31133). */
int op_mask(struct stage *s, const struct plan_op *op)
{
	struct stat st;
	int target = resolve(s, op_text(s, op, 0), false);
	if (target < 0)
		return errno == ENOENT ? 0 : fail(s, WHERE_RESOLVE, errno);
	int result = fstat(target, &st);
	if (result == 0)
		result = S_ISDIR(st.st_mode) ? mask_directory(s, target, op_text(s, op, 0)) : bind_onto(s, s->slots[SLOT_NULL], target);
	close_fd(target);
	return result;
}

int op_readonly(struct stage *s, const struct plan_op *op)
{
	int target = resolve(s, op_text(s, op, 0), false);
	if (target < 0)
		return errno == ENOENT ? 0 : fail(s, WHERE_RESOLVE, errno);
	int result = bind_readonly(s, target, target, op_text(s, op, 0));
	close_fd(target);
	return result;
}

/* The new root is stacked below the old one, which is then taken off, so no
 * directory for it is needed inside (pivot_root(2), "."). Slave first: the
 * unmount must not travel to the host. */
int op_pivot(struct stage *s, const struct plan_op *op)
{
	(void)op;
	int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int result = -1;
	if (old >= 0 && fchdir(s->slots[SLOT_ROOT]) == 0 && syscall(SYS_pivot_root, ".", ".") == 0 &&
	    fchdir(old) == 0 && mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) == 0 &&
	    umount2(".", MNT_DETACH) == 0)
		result = chdir("/");
	close_fd(old);
	return result;
}

/* All of a file, with a zero after it; NULL and errno if it cannot be had. */
static char *read_whole(int fd)
{
	size_t size = 0, room = 1 << 16;
	char *text = malloc(room);
	while (text) {
		ssize_t n = read(fd, text + size, room - size - 1);
		if (n == 0) {
			text[size] = '\0';
			return text;
		}
		size += n > 0 ? (size_t)n : 0;
		bool wants_more = n > 0 || errno == EINTR;
		if (wants_more && size < room - 1)
			continue;
		char *larger = wants_more ? realloc(text, room *= 2) : NULL;
		if (!larger)
			free(text);
		text = larger;
	}
	return NULL;
}

/* mountinfo writes blanks, line ends and backslashes in octal. */
static void unescape(char *text)
{
	char *to = text;
	for (; *text; to++) {
		if (text[0] == '\\' && text[1] && text[2] && text[3]) {
			*to = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
			text += 4;
		} else {
			*to = *text++;
		}
	}
	*to = '\0';
}

/* The mount point of a line of mountinfo, proc_pid_mountinfo(5), if it is a whole procfs
 * or sysfs outside `root`, else NULL. The line is cut up. */
static char *whole_outside(char *line, const char *root)
{
	char *rest = line, *fields[5];
	char *type = strstr(line, " - ");
	if (!type || (strncmp(type + 3, "proc ", 5) != 0 && strncmp(type + 3, "sysfs ", 6) != 0))
		return NULL;
	for (int i = 0; i < 5; i++)
		if (!(fields[i] = strsep(&rest, " ")))
			return NULL;
	unescape(fields[4]);
	size_t length = strlen(root);
	bool inside = strncmp(fields[4], root, length) == 0 && (fields[4][length] == '/' || fields[4][length] == '\0');
	return strcmp(fields[3], "/") == 0 && !inside ? fields[4] : NULL;
}

/* Takes a mount away, or covers it where that is not ours to do. One that is not there
 * has gone with another. */
static int take_away(const char *point)
{
	if (mount(NULL, point, NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return errno == ENOENT ? 0 : -1;
	if (umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno != EINVAL && errno != EPERM)
		return -1;
	return mount("tmpfs", point, "tmpfs", 0, NULL);
}

/* The host's mounts stay in the namespace. While a whole procfs or sysfs is among them
 * the kernel lets who makes a user namespace mount another, and that has no masks. What
 * was mounted last is taken away first. */
static int take_away_outside(struct stage *s, const char *root)
{
	int fd = openat(s->slots[SLOT_PROC], "self/mountinfo", O_RDONLY | O_CLOEXEC);
	char *mounts = fd < 0 ? NULL : read_whole(fd);
	close_fd(fd);
	if (!mounts)
		return -1;
	int result = 0;
	while (result == 0) {
		char *end = strrchr(mounts, '\n');
		if (!end)
			break;
		*end = '\0';
		char *line = strrchr(mounts, '\n');
		char *point = whole_outside(line ? line + 1 : mounts, root);
		result = point ? take_away(point) : 0;
	}
	free(mounts);
	return result;
}

/* --no-pivot, for a root on the initial ramfs, which cannot be pivoted away. */
int op_move_root(struct stage *s, const struct plan_op *op)
{
	if (take_away_outside(s, op_text(s, op, 0)) < 0)
		return -1;
	if (fchdir(s->slots[SLOT_ROOT]) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
		return -1;
	return chdir("/");
}

/* Without a mount namespace the root cannot be changed for all: / is the
 * host's, too. */
int op_chroot(struct stage *s, const struct plan_op *op)
{
	(void)op;
	if (fchdir(s->slots[SLOT_ROOT]) < 0 || chroot(".") < 0)
		return -1;
	return chdir("/");
}
