/*
 * The process: terminal, limits, user, capabilities, filter, execve.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <linux/filter.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include "stage.h"

/* A session keyring of its own: the runtime's holds the host's keys. The
 * permission lets every process of the container find it, as runc's. */
int join_keyring(const char *name)
{
	long key = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name, 0, 0, 0);
	if (key < 0)
		return -1;
	long description = syscall(SYS_keyctl, KEYCTL_SETPERM, key, 0x3f1b0000, 0, 0);
	return description < 0 ? -1 : 0;
}

int op_keyring(struct stage *s, const struct plan_op *op)
{
	if (s->has_keyring || join_keyring(op_text(s, op, 0)) == 0)
		return 0;
	return errno == ENOSYS ? 0 : -1;
}

int op_setsid(struct stage *s, const struct plan_op *op)
{
	(void)s;
	(void)op;
	return setsid() < 0 ? -1 : 0;
}

static int send_master(int socket, int master)
{
	char name[] = "/dev/ptmx";
	struct iovec data = { .iov_base = name, .iov_len = sizeof(name) - 1 };
	union {
		char buffer[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .buffer = { 0 } };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control.buffer, .msg_controllen = sizeof(control.buffer),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &master, sizeof(int));
	return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* Opens a new terminal of the container's own devpts. Both ends are had by
 * descriptor, never by a name in /dev that the image could have put there
 * (CVE-2025-52565). */
static int open_terminal(struct stage *s, int *master)
{
	int unlock = 0;
	int multiplexer = resolve(s, "dev/pts/ptmx", true);
	if (multiplexer < 0)
		return fail(s, WHERE_RESOLVE, errno);
	if (!on_file_system(multiplexer, DEVPTS_SUPER_MAGIC)) {
		close_fd(multiplexer);
		return fail(s, WHERE_UNSAFE, EINVAL);
	}
	*master = reopen(s, multiplexer, O_RDWR | O_NOCTTY);
	close_fd(multiplexer);
	if (*master < 0 || ioctl(*master, TIOCSPTLCK, &unlock) < 0)
		return -1;
	return ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static int bind_console(struct stage *s, int terminal)
{
	int target = resolve_or_make(s, "dev/console", false, TARGET_FILE, 0620);
	if (target < 0)
		return fail(s, WHERE_RESOLVE, errno);
	int result = bind_onto(s, terminal, target);
	close_fd(target);
	return result;
}

/* Without a carriage return before each line's end. */
static int plain_lines(int terminal)
{
	struct termios mode;
	if (tcgetattr(terminal, &mode) < 0)
		return -1;
	mode.c_oflag &= ~(tcflag_t)ONLCR;
	return tcsetattr(terminal, TCSANOW, &mode);
}

int op_terminal(struct stage *s, const struct plan_op *op)
{
	struct winsize size = { .ws_row = (unsigned short)op->num[0], .ws_col = (unsigned short)op->num[1] };
	int master = -1;
	int terminal = open_terminal(s, &master);
	int result = terminal < 0 ? -1 : 0;

	if (result == 0 && size.ws_row != 0)
		result = ioctl(master, TIOCSWINSZ, &size);
	if (result == 0 && op->num[2])
		result = plain_lines(terminal);
	if (result == 0 && (op->flags & FLAG_CONSOLE))
		result = bind_console(s, terminal);
	if (result == 0)
		result = send_master(s->slots[SLOT_CONSOLE], master);
	for (int fd = 0; fd < 3 && result == 0; fd++)
		result = dup2(terminal, fd) < 0 ? -1 : 0;
	close_fd(terminal);
	close_fd(master);
	s->has_terminal = result == 0;
	return result;
}

int op_control(struct stage *s, const struct plan_op *op)
{
	(void)s;
	(void)op;
	return ioctl(STDIN_FILENO, TIOCSCTTY, 0);
}

/* Another user than root could not open /dev/stdout and friends anew. What
 * cannot be given away (read-only, not ours, /dev/null) stays, as in runc. */
int op_stdio_owner(struct stage *s, const struct plan_op *op)
{
	struct stat st;
	for (int fd = 0; fd < 3; fd++) {
		if (fstat(fd, &st) < 0)
			continue;
		bool null = S_ISCHR(st.st_mode) && major(st.st_rdev) == 1 && minor(st.st_rdev) == 3;
		bool others = !s->has_terminal && isatty(fd); /* of whoever called the runtime */
		if (st.st_uid == op->num[0] || null || others)
			continue;
		if (fchown(fd, (uid_t)op->num[0], (gid_t)-1) < 0 && errno != EINVAL && errno != EPERM && errno != EROFS)
			return -1;
	}
	return 0;
}

int op_personality(struct stage *s, const struct plan_op *op)
{
	(void)s;
	return personality(op->num[0]) < 0 ? -1 : 0;
}

int op_affinity(struct stage *s, const struct plan_op *op)
{
	unsigned long every[8192 / (8 * sizeof(long))]; /* the kernel's largest NR_CPUS */
	if (op->blob_size == 0) {
		memset(every, 0xff, sizeof(every));
		return sched_setaffinity(0, sizeof(every), (const cpu_set_t *)every);
	}
	return sched_setaffinity(0, op->blob_size, op_blob(s, op));
}

/* The kernel takes one bit off maxnode (get_mempolicy(2), BUGS). */
int op_memory_policy(struct stage *s, const struct plan_op *op)
{
	unsigned long bits = op->blob_size * 8ul;
	return (int)syscall(SYS_set_mempolicy, (int)op->num[0], bits ? op_blob(s, op) : NULL, bits ? bits + 1 : 0);
}

int op_scheduler(struct stage *s, const struct plan_op *op)
{
	return (int)syscall(SYS_sched_setattr, 0, op_blob(s, op), 0);
}

int op_ioprio(struct stage *s, const struct plan_op *op)
{
	(void)s;
	return (int)syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, (int)op->num[0]);
}

int op_rlimit(struct stage *s, const struct plan_op *op)
{
	struct rlimit limit = { .rlim_cur = op->num[1], .rlim_max = op->num[2] };
	(void)s;
	return setrlimit((int)op->num[0], &limit);
}

int op_umask(struct stage *s, const struct plan_op *op)
{
	(void)s;
	umask((mode_t)op->num[0]);
	return 0;
}

/* Root may not be allowed where the user is (a network file system), so the
 * first try is optional and the second decides. The directory must be below
 * the root: the path may lead through an inherited descriptor
 * (/proc/self/fd/N, CVE-2024-21626). The kernel's getcwd then answers
 * "(unreachable)...". */
int op_chdir(struct stage *s, const struct plan_op *op)
{
	char directory[PATH_MAX];
	if ((op->flags & FLAG_AFTER_USER) && s->in_directory)
		return 0;
	if (chdir(op_text(s, op, 0)) < 0)
		return errno == EACCES && !(op->flags & FLAG_AFTER_USER) ? 0 : -1;
	if (syscall(SYS_getcwd, directory, sizeof(directory)) < 0)
		return fail(s, WHERE_OUTSIDE, errno);
	if (directory[0] != '/')
		return fail(s, WHERE_OUTSIDE, EPERM);
	s->in_directory = true;
	return 0;
}

int op_bounding(struct stage *s, const struct plan_op *op)
{
	(void)s;
	for (int capability = 0; capability < 64; capability++) {
		if (op->num[0] >> capability & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
			return errno == EINVAL ? 0 : -1; /* beyond the last that the kernel knows */
	}
	return 0;
}

/* Below a user namespace that denies setgroups(2) the process keeps what groups
 * the runtime has: it could not drop them either (user_namespaces(7)). */
static int set_groups(size_t count, const gid_t *groups)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	if (setgroups(count, groups) == 0)
		return 0;
	if (errno != EPERM || count > 0 || syscall(SYS_capget, &header, data) < 0)
		return -1;
	errno = EPERM; /* to who has the capability only the namespace says no */
	return data[0].effective >> CAP_SETGID & 1 ? 0 : -1;
}

/* KEEPCAPS: a change of uid from 0 would drop the permitted set, from which
 * OP_CAPS takes what the spec gives. */
int op_user(struct stage *s, const struct plan_op *op)
{
	gid_t gid = (gid_t)op->num[1];
	uid_t uid = (uid_t)op->num[0];
	if (uid == (uid_t)-1 || gid == (gid_t)-1) /* which would leave us who we are */
		return fail(s, WHERE_PLAN, EINVAL);
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return -1;
	if ((op->flags & FLAG_GROUPS) && set_groups(op->blob_size / sizeof(gid_t), op_blob(s, op)) < 0)
		return -1;
	if (setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -1;
	return prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
}

int op_caps(struct stage *s, const struct plan_op *op)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	(void)s;
	for (int half = 0; half < 2; half++) {
		data[half].effective = (uint32_t)(op->num[0] >> 32 * half);
		data[half].permitted = (uint32_t)(op->num[1] >> 32 * half);
		data[half].inheritable = (uint32_t)(op->num[2] >> 32 * half);
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return -1;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
		return -1;
	for (int capability = 0; capability < 64; capability++)
		if ((op->num[3] >> capability & 1) &&
		    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
			return -1;
	return 0;
}

int op_no_new_privs(struct stage *s, const struct plan_op *op)
{
	(void)s;
	(void)op;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* Field n (from 0) of a passwd line, in place. NULL if there are fewer. */
static char *field(char *line, int n)
{
	while (n-- > 0) {
		line = strchr(line, ':');
		if (line == NULL)
			return NULL;
		line++;
	}
	return line;
}

/* Fills s->home if line is uid's. */
static bool take_home(struct stage *s, char *line, unsigned long uid)
{
	char *number = field(line, 2), *home = field(line, 5), *end;
	if (number == NULL || home == NULL || strtoul(number, &end, 10) != uid || end == number || *end != ':')
		return false;
	size_t length = strcspn(home, ":\n");
	if (length >= PATH_MAX)
		return false;
	snprintf(s->home, sizeof(s->home), "HOME=%.*s", (int)length, home);
	return true;
}

/* The file is the container's: whatever is odd in it only means that HOME is
 * "/". Lines longer than the buffer are skipped. */
static void find_home(struct stage *s, int fd, unsigned long uid)
{
	char buffer[4096];
	size_t used = 0;
	ssize_t n;
	while ((n = read(fd, buffer + used, sizeof(buffer) - 1 - used)) > 0) {
		used += (size_t)n;
		buffer[used] = '\0';
		char *line = buffer, *end;
		while ((end = strchr(line, '\n')) != NULL) {
			*end = '\0';
			if (take_home(s, line, uid))
				return;
			line = end + 1;
		}
		used -= (size_t)(line - buffer);
		memmove(buffer, line, used);
		if (used == sizeof(buffer) - 1)
			used = 0;
	}
	buffer[used] = '\0';
	if (used > 0)
		take_home(s, buffer, uid);
}

int op_home(struct stage *s, const struct plan_op *op)
{
	struct stat st;
	if (s->envp == NULL)
		return fail(s, WHERE_PLAN, EINVAL);
	strcpy(s->home, "HOME=/");
	int path = resolve(s, "etc/passwd", false);
	if (path >= 0 && fstat(path, &st) == 0 && S_ISREG(st.st_mode)) {
		int fd = reopen(s, path, O_RDONLY);
		if (fd >= 0)
			find_home(s, fd, op->num[0]);
		close_fd(fd);
	}
	close_fd(path);
	s->envp[s->env_count] = s->home;
	return 0;
}

/* Strings of a blob as an array of pointers in the room before them. */
static char **pointers(struct stage *s, const struct plan_op *op, uint32_t extra)
{
	char **array = op_blob(s, op);
	char *end = (char *)op_blob(s, op) + op->blob_size;
	size_t room = (op->num[0] + 1 + extra) * sizeof(char *);
	if (op->num[0] > op->blob_size || room > op->blob_size)
		return NULL;
	char *string = (char *)op_blob(s, op) + room;
	for (uint64_t i = 0; i < op->num[0]; i++) {
		size_t left = (size_t)(end - string);
		size_t length = strnlen(string, left);
		if (length == left)
			return NULL;
		array[i] = string;
		string += length + 1;
	}
	for (uint64_t i = op->num[0]; i <= op->num[0] + extra; i++)
		array[i] = NULL;
	return array;
}

int op_env(struct stage *s, const struct plan_op *op)
{
	s->envp = pointers(s, op, 1);
	s->env_count = (uint32_t)op->num[0];
	return s->envp ? 0 : fail(s, WHERE_PLAN, EINVAL);
}

int op_args(struct stage *s, const struct plan_op *op)
{
	s->argv = pointers(s, op, 0);
	return s->argv && s->argv[0] ? 0 : fail(s, WHERE_PLAN, EINVAL);
}

/* 0 if s->command can be executed; else where and errno say why not. */
static int check_command(struct stage *s)
{
	struct stat st;
	if (stat(s->command, &st) < 0)
		return fail(s, WHERE_STAT, errno);
	if (S_ISDIR(st.st_mode))
		return fail(s, WHERE_DIRECTORY, EISDIR);
	if (access(s->command, X_OK) < 0) /* real and effective ids are the same here */
		return fail(s, WHERE_ACCESS, errno);
	return 0;
}

/* As os/exec's LookPath, because callers know its errors: with a slash the
 * path itself, else the first executable file along PATH. It is done before
 * OP_READY, so that `create` already fails. */
int op_lookup(struct stage *s, const struct plan_op *op)
{
	const char *name = op_text(s, op, 0), *path = op_text(s, op, 1);
	if (strchr(name, '/') != NULL) {
		if (snprintf(s->command, sizeof(s->command), "%s", name) >= (int)sizeof(s->command))
			return fail(s, WHERE_STAT, ENAMETOOLONG);
		return check_command(s);
	}
	while (*path != '\0' && *name != '\0') {
		int length = (int)strcspn(path, ":");
		int n = length == 0 ? snprintf(s->command, sizeof(s->command), "./%s", name)
				    : snprintf(s->command, sizeof(s->command), "%.*s/%s", length, path, name);
		if (n < (int)sizeof(s->command) && check_command(s) == 0)
			return 0;
		path += length;
		path += *path == ':';
	}
	return fail(s, WHERE_PATH, ENOENT);
}

/* Before 5.11 there is no CLOSE_RANGE_CLOEXEC. */
static int cloexec_from_list(struct stage *s, unsigned first)
{
	int list = openat(s->slots[SLOT_SELF], "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char buffer[4096] __attribute__((aligned(8)));
	long n;
	if (list < 0)
		return -1;
	while ((n = syscall(SYS_getdents64, list, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < n;) {
			struct directory_entry *entry = (void *)(buffer + at);
			long fd = strtol(entry->name, NULL, 10);
			if (entry->name[0] != '.' && fd >= (long)first)
				fcntl((int)fd, F_SETFD, FD_CLOEXEC);
			at += entry->length;
		}
	}
	close_fd(list);
	return n < 0 ? -1 : 0;
}

/* Whatever the runtime was given or opened stays out of the container
 * (CVE-2024-21626). */
int op_cloexec(struct stage *s, const struct plan_op *op)
{
	unsigned first = (unsigned)op->num[0];
	if (op->num[1] != 0) {
		for (uint64_t fd = first; fd < op->num[1] && fd < 1 << 20; fd++)
			fcntl((int)fd, F_SETFD, FD_CLOEXEC); /* or there is none */
		return 0;
	}
	if (syscall(SYS_close_range, first, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
		return 0;
	return errno == ENOSYS || errno == EINVAL ? cloexec_from_list(s, first) : -1;
}

/* The fifo is open for reading and writing, so `start` finds a reader as long
 * as we live, and nothing has to be opened in here. */
int op_await_start(struct stage *s, const struct plan_op *op)
{
	char byte;
	ssize_t n;
	(void)op;
	do
		n = read(s->slots[SLOT_FIFO], &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1 ? 0 : -1;
}

/* The parent takes the listener out of here (pidfd_getfd, 5.6): sending it
 * would take a system call that the filter may hand to the agent, who has no
 * listener yet. */
static int hand_listener(struct stage *s, int listener)
{
	if (listener < 0)
		return -1;
	tell(s, MESSAGE_LISTENER, listener);
	await(s);
	close_fd(listener);
	return 0;
}

int op_seccomp(struct stage *s, const struct plan_op *op)
{
	struct sock_fprog program = {
		.len = (unsigned short)(op->blob_size / sizeof(struct sock_filter)),
		.filter = op_blob(s, op),
	};
	if (op->blob_size / sizeof(struct sock_filter) > BPF_MAXINSNS) /* .len would be cut */
		return fail(s, WHERE_PLAN, EINVAL);
	if (op->flags & FLAG_LISTENER)
		return hand_listener(s, (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, op->num[0] | SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
	if (op->num[0] == 0)
		return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, op->num[0], &program);
}

int op_exec(struct stage *s, const struct plan_op *op)
{
	(void)op;
	if (s->argv == NULL || s->envp == NULL)
		return fail(s, WHERE_PLAN, EINVAL);
	execve(s->command, s->argv, s->envp);
	return -1;
}
