/*
 * The stage between clone and execve. The runtime starts itself again with
 * PLAN_MARKER as the whole environment; this constructor runs before the Go
 * runtime starts, applies the plan and becomes the container's process, so no
 * Go ever runs inside (a second start of it would cost more than all the
 * stage does, and namespaces want a single thread).
 *
 * Stages:
 *	1. start     hidden from other processes, clean signals, namespaces that can be
 *	             made by now; waits for the plan
 *	2. apply     one operation after the other; the first failure is told to
 *	             the parent as index + errno, and the process exits
 *	3. OP_READY  the parent lets go; hooks; OP_EXEC
 *
 * The parent's death closes the socket, and the process exits at its next
 * wait. Nothing is allocated: the plan is mapped once, and descriptors that
 * operations leave for each other are in stage.slots.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "stage.h"

const char *op_text(const struct stage *s, const struct plan_op *op, int i)
{
	return op->text[i] ? (const char *)s->plan + op->text[i] : "";
}

void *op_blob(const struct stage *s, const struct plan_op *op)
{
	return s->plan + op->blob;
}

int fail(struct stage *s, uint32_t where, int error)
{
	s->where = where;
	errno = error;
	return -1;
}

/* Puts fd into a slot; what was there is closed. */
int keep(struct stage *s, int slot, int fd)
{
	if (fd < 0)
		return -1;
	close_fd(s->slots[slot]);
	s->slots[slot] = fd;
	return 0;
}

/* write and read, not send and recv: they may be under a filter that notifies,
 * which no profile may do with write (OP_SECCOMP). A parent that is gone is
 * noticed at the next wait. */
static void send_packet(const struct stage *s, const void *packet, size_t size)
{
	int to = s->socket >= 0 ? s->socket : s->slots[SLOT_REPORT];
	while (write(to, packet, size) < 0 && errno == EINTR)
		;
}

int tell(struct stage *s, uint32_t type, int64_t value)
{
	struct plan_message_packet packet = { .type = type, .op = s->index, .value = value };
	send_packet(s, &packet, sizeof(packet));
	return 0;
}

/* Ends the process, whatever its own filter says of that: with exit_group forbidden a
 * C library's _exit tries for ever. */
static _Noreturn void leave(int status)
{
	syscall(SYS_exit_group, status);
	syscall(SYS_exit, status);
	__builtin_trap();
}

/* Waits for the parent's word. A parent that is gone takes us with it. */
int await(struct stage *s)
{
	struct plan_message_packet packet;
	ssize_t n;
	do
		n = read(s->socket, &packet, sizeof(packet));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(packet))
		leave(1);
	return (int)packet.type;
}

static bool hook_failed(const struct stage *s)
{
	return s->where == WHERE_HOOK || s->where == WHERE_HOOK_TIMEOUT;
}

/* What the hook has said about it. */
static void send_output(struct stage *s)
{
	char text[PLAN_MAX_OUTPUT];
	ssize_t n = pread((int)s->ops[s->index].num[3], text, sizeof(text), 0);
	if (n > 0)
		send_packet(s, text, (size_t)n);
}

/* After OP_READY nobody listens but start, to hooks, and the container's own standard
 * error. */
static void die(struct stage *s)
{
	int error = errno;
	struct plan_message_packet packet = {
		.type = MESSAGE_ERROR, .op = s->index, .error = error, .where = s->where, .value = s->hooks,
	};
	char text[PATH_MAX + 64];
	if (s->socket >= 0 || s->slots[SLOT_REPORT] >= 0) {
		send_packet(s, &packet, sizeof(packet));
		if (hook_failed(s))
			send_output(s);
	} else {
		/* write, as above: not what a C library's stdio chooses. */
		int length = snprintf(text, sizeof(text), "exec %s: %s\n", s->command, strerror(error));
		if (write(STDERR_FILENO, text, (size_t)length) < 0) {
			/* Nobody else to tell. */
		}
	}
	leave(error == ENOENT && !hook_failed(s) ? 127 : 1);
}

/* Opens the host's procfs and makes sure that it is one: what is written there
 * must reach the kernel (CVE-2019-16884, CVE-2025-52881). */
static int op_proc(struct stage *s, const struct plan_op *op)
{
	(void)op;
	int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (keep(s, SLOT_PROC, proc) < 0)
		return -1;
	if (!on_file_system(proc, PROC_SUPER_MAGIC))
		return fail(s, WHERE_UNSAFE, EINVAL);
	return keep(s, SLOT_SELF, openat(proc, "self", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

static int op_null(struct stage *s, const struct plan_op *op)
{
	struct stat st;
	(void)op;
	int fd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (keep(s, SLOT_NULL, fd) < 0 || fstat(fd, &st) < 0)
		return -1;
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return fail(s, WHERE_UNSAFE, EINVAL);
	return 0;
}

static int op_adopt(struct stage *s, const struct plan_op *op)
{
	if (op->num[0] == SLOT_NONE || op->num[0] >= SLOT_COUNT)
		return fail(s, WHERE_PLAN, EINVAL);
	int fd = (int)op->num[1];
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -1;
	if (op->num[0] == SLOT_TREE)
		s->tree_is_source = false;
	return keep(s, (int)op->num[0], fd);
}

static int write_to(int fd, const char *text)
{
	size_t length = strlen(text);
	ssize_t n = fd < 0 ? -1 : write(fd, text, length);
	close_fd(fd);
	if (n >= 0 && (size_t)n != length)
		errno = EIO;
	return n >= 0 && (size_t)n == length ? 0 : -1;
}

static int op_write(struct stage *s, const struct plan_op *op)
{
	int fd = op->num[0] ? (int)op->num[0] : open(op_text(s, op, 0), O_WRONLY | O_CLOEXEC);
	return write_to(fd, op_text(s, op, 1));
}

/* By the root's procfs, because the kernel keeps each name below sys/net once for each
 * network namespace, all in one list, so that beside 500 containers the walk by the
 * host's takes ten times as long. */
static int open_own_proc(struct stage *s, const char *path)
{
	int proc = open_procfs(s);
	int fd = proc < 0 ? -1 : open_of_procfs(proc, path, O_WRONLY);
	close_fd(proc);
	return fd;
}

static int op_proc_write(struct stage *s, const struct plan_op *op)
{
	int base = s->slots[op->flags & FLAG_SELF ? SLOT_SELF : SLOT_PROC];
	int fd = op->flags & FLAG_OWN ? open_own_proc(s, op_text(s, op, 0)) : -1;
	if (fd < 0)
		fd = openat(base, op_text(s, op, 0), O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == EACCES && (op->flags & FLAG_SELF)) {
		/* Of a process that is not dumpable they are the root's of the
		 * user namespace in which it was executed, which another user,
		 * or the root of a namespace made since, is not. */
		prctl(PR_SET_DUMPABLE, 1);
		fd = openat(base, op_text(s, op, 0), O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
		prctl(PR_SET_DUMPABLE, 0);
	}
	if (fd >= 0 && !on_file_system(fd, PROC_SUPER_MAGIC)) {
		close_fd(fd);
		return fail(s, WHERE_UNSAFE, EINVAL);
	}
	return write_to(fd, op_text(s, op, 1));
}

static int op_setns(struct stage *s, const struct plan_op *op)
{
	int fd = open(op_text(s, op, 0), O_RDONLY | O_CLOEXEC);
	int result = fd < 0 ? -1 : setns(fd, (int)op->num[0]);
	close_fd(fd);
	return result;
}

/* Joins by the files of a process's directory in /proc, user first: it gives
 * the right to the others; mnt last: it changes what /proc is. */
static int setns_by_files(int process, uint64_t types)
{
	static const struct {
		const char *file;
		uint64_t type;
	} namespaces[] = {
		{ "ns/user", CLONE_NEWUSER }, { "ns/cgroup", CLONE_NEWCGROUP }, { "ns/ipc", CLONE_NEWIPC },
		{ "ns/uts", CLONE_NEWUTS }, { "ns/net", CLONE_NEWNET }, { "ns/time", 0x80 },
		{ "ns/pid", CLONE_NEWPID },
		{ "ns/mnt", CLONE_NEWNS },
	};
	for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
		if ((types & namespaces[i].type) == 0)
			continue;
		int fd = openat(process, namespaces[i].file, O_RDONLY | O_CLOEXEC);
		int result = fd < 0 ? -1 : setns(fd, (int)namespaces[i].type);
		close_fd(fd);
		if (result < 0)
			return -1;
	}
	return 0;
}

/* All namespaces of a process in one call, so that they are of one moment
 * (setns with a pidfd, 5.8). Without pidfds the slot is a directory of /proc. */
static int op_setns_all(struct stage *s, const struct plan_op *op)
{
	int process = s->slots[SLOT_CONTAINER];
	if (on_file_system(process, PROC_SUPER_MAGIC))
		return setns_by_files(process, op->num[0]);
	return setns(process, (int)op->num[0]);
}

static int op_unshare(struct stage *s, const struct plan_op *op)
{
	(void)s;
	return unshare((int)op->num[0]);
}

/* pid and time namespaces take in only children. CLONE_PARENT: the runtime, or
 * its subreaper, stays the one who waits. The child goes on when the parent
 * has heard of its pid. */
static int op_clone(struct stage *s, const struct plan_op *op)
{
	(void)op;
	long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid < 0)
		return -1;
	if (pid == 0) {
		await(s);
		/* The descriptor of the old self's directory shows the old
		 * self; the host's procfs knows us, whatever we joined. */
		if (s->slots[SLOT_PROC] < 0)
			return 0;
		return keep(s, SLOT_SELF, openat(s->slots[SLOT_PROC], "self", O_PATH | O_DIRECTORY | O_CLOEXEC));
	}
	tell(s, MESSAGE_PID, pid);
	leave(0);
}

/* An unprivileged parent may write the files of a process in /proc, as the id
 * maps, only while that is dumpable: else they are root's. */
static int op_sync(struct stage *s, const struct plan_op *op)
{
	drop_sysfs(s);
	if (op->flags & FLAG_VISIBLE)
		prctl(PR_SET_DUMPABLE, 1);
	tell(s, MESSAGE_STEP, (int64_t)op->num[0]);
	await(s);
	prctl(PR_SET_DUMPABLE, 0);
	return 0;
}

/* The parent has said so already, if it was faster. */
static int op_await(struct stage *s, const struct plan_op *op)
{
	(void)op;
	await(s);
	return 0;
}

/* A process of the container that may trace others (CAP_SYS_PTRACE) has what is behind
 * our descriptors and our root as soon as it can see us: in its pid namespace. The
 * first keeps others out, in a user namespace that the program was not started in;
 * elsewhere this does. */
static int op_drop(struct stage *s, const struct plan_op *op)
{
	(void)op;
	for (int slot = SLOT_NONE; slot < SLOT_COUNT; slot++) {
		if (slot == SLOT_FIFO || slot == SLOT_REPORT)
			continue;
		close_fd(s->slots[slot]);
		s->slots[slot] = -1;
	}
	return 0;
}

static int bring_loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int result = fd < 0 ? -1 : ioctl(fd, SIOCSIFFLAGS, &request);
	close_fd(fd);
	return result;
}

static int op_loopback(struct stage *s, const struct plan_op *op)
{
	(void)op;
	return s->has_loopback ? 0 : bring_loopback_up();
}

static int op_hostname(struct stage *s, const struct plan_op *op)
{
	const char *name = op_text(s, op, 0);
	return sethostname(name, strlen(name));
}

static int op_domainname(struct stage *s, const struct plan_op *op)
{
	const char *name = op_text(s, op, 0);
	return setdomainname(name, strlen(name));
}

/* From here on the parent may be gone. */
static int op_ready(struct stage *s, const struct plan_op *op)
{
	(void)op;
	drop_sysfs(s);
	tell(s, MESSAGE_READY, 0);
	close_fd(s->socket);
	s->socket = -1;
	return 0;
}

static const operation operations[OP_COUNT] = {
	[OP_ADOPT] = op_adopt,
	[OP_PROC] = op_proc,
	[OP_NULL] = op_null,
	[OP_WRITE] = op_write,
	[OP_PROC_WRITE] = op_proc_write,
	[OP_SETNS] = op_setns,
	[OP_SETNS_ALL] = op_setns_all,
	[OP_UNSHARE] = op_unshare,
	[OP_CLONE] = op_clone,
	[OP_SYNC] = op_sync,
	[OP_LOOPBACK] = op_loopback,
	[OP_HOSTNAME] = op_hostname,
	[OP_DOMAINNAME] = op_domainname,
	[OP_PROPAGATION] = op_propagation,
	[OP_ROOT] = op_root,
	[OP_ROOT_HERE] = op_root_here,
	[OP_TARGET] = op_target,
	[OP_COPY_UP] = op_copy_up,
	[OP_MOUNT] = op_mount,
	[OP_TREE] = op_tree,
	[OP_ATTACH] = op_attach,
	[OP_ATTR] = op_attr,
	[OP_MKNOD] = op_mknod,
	[OP_SYMLINK] = op_symlink,
	[OP_MASK] = op_mask,
	[OP_READONLY] = op_readonly,
	[OP_PIVOT] = op_pivot,
	[OP_MOVE_ROOT] = op_move_root,
	[OP_CHROOT] = op_chroot,
	[OP_KEYRING] = op_keyring,
	[OP_SETSID] = op_setsid,
	[OP_TERMINAL] = op_terminal,
	[OP_STDIO_OWNER] = op_stdio_owner,
	[OP_PERSONALITY] = op_personality,
	[OP_AFFINITY] = op_affinity,
	[OP_MEMORY_POLICY] = op_memory_policy,
	[OP_SCHEDULER] = op_scheduler,
	[OP_IOPRIO] = op_ioprio,
	[OP_RLIMIT] = op_rlimit,
	[OP_UMASK] = op_umask,
	[OP_CHDIR] = op_chdir,
	[OP_BOUNDING] = op_bounding,
	[OP_USER] = op_user,
	[OP_CAPS] = op_caps,
	[OP_NO_NEW_PRIVS] = op_no_new_privs,
	[OP_HOME] = op_home,
	[OP_ENV] = op_env,
	[OP_ARGS] = op_args,
	[OP_LOOKUP] = op_lookup,
	[OP_CLOEXEC] = op_cloexec,
	[OP_READY] = op_ready,
	[OP_AWAIT_START] = op_await_start,
	[OP_SECCOMP] = op_seccomp,
	[OP_EXEC] = op_exec,
	[OP_AWAIT] = op_await,
	[OP_HOOK] = op_hook,
	[OP_DROP] = op_drop,
	[OP_CONTROL] = op_control,
	[OP_STARTED] = op_started,
};

/* Everything that an operation refers to must lie inside the plan. */
static bool valid_op(const struct plan_header *h, const struct plan_op *op)
{
	if (op->code >= OP_COUNT || operations[op->code] == NULL)
		return false;
	for (int i = 0; i < 3; i++)
		if (op->text[i] >= h->size)
			return false;
	return op->blob <= h->size && op->blob_size <= h->size - op->blob && op->blob % 8 == 0;
}

static bool valid_plan(const unsigned char *plan, size_t size)
{
	const struct plan_header *h = (const void *)plan;
	if (size < sizeof(*h) || size > PLAN_MAX_SIZE || h->size != size || plan[size - 1] != '\0')
		return false;
	if (h->magic != PLAN_MAGIC || h->version != PLAN_VERSION || h->op_size != sizeof(struct plan_op))
		return false;
	if (h->op_count > (size - sizeof(*h)) / sizeof(struct plan_op))
		return false;
	const struct plan_op *ops = (const void *)(h + 1);
	for (uint32_t i = 0; i < h->op_count; i++)
		if (!valid_op(h, &ops[i]))
			return false;
	return true;
}

/* Private and writable: OP_ENV and OP_ARGS build their pointers in place. */
static void map_plan(struct stage *s, int memory)
{
	struct stat st;
	s->where = WHERE_PLAN;
	if (fstat(memory, &st) < 0)
		die(s);
	void *plan = st.st_size <= 0 ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, memory, 0);
	if (plan == MAP_FAILED || !valid_plan(plan, (size_t)st.st_size)) {
		errno = EINVAL;
		die(s);
	}
	close_fd(memory);
	s->plan = plan;
	s->ops = (const void *)(s->plan + sizeof(struct plan_header));
}

static void apply(struct stage *s)
{
	const struct plan_header *h = (const void *)s->plan;
	s->end = h->op_count;
	for (s->index = 0; s->index < s->end; s->index++) {
		const struct plan_op *op = &s->ops[s->index];
		s->where = WHERE_OP;
		if (operations[op->code](s, op) < 0 && !(op->flags & FLAG_OPTIONAL))
			die(s);
	}
	s->where = WHERE_PLAN; /* OP_EXEC does not return */
	errno = EINVAL;
	die(s);
}

/* The parent's Go runtime has handlers and masks that must not be inherited;
 * ignored signals would stay ignored beyond execve. */
static void clean_signals(void)
{
	static const unsigned long standard[8]; /* SIG_DFL, no flags, an empty mask: rt_sigaction(2) */
	sigset_t none;
	/* A C library keeps some signals for itself. */
	for (int number = 1; number < NSIG; number++)
		syscall(SYS_rt_sigaction, number, standard, NULL, 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What can be made before the plan is known, and what else takes long: the runtime
 * needs the time. What fails of that is tried again by the plan, and told. */
static void make_namespaces(struct stage *s, int namespaces, const char *keyring)
{
	if (namespaces == 0)
		return;
	s->where = WHERE_BIRTH;
	if (unshare(namespaces) < 0)
		die(s);
	tell(s, MESSAGE_BORN, 0);
	if ((namespaces & CLONE_NEWNET) && (namespaces & CLONE_NEWNS))
		prepare_sysfs(s);
	s->has_loopback = (namespaces & CLONE_NEWNET) && bring_loopback_up() == 0;
	s->has_keyring = keyring != NULL && join_keyring(keyring) == 0;
}

static struct stage stage;

__attribute__((constructor)) static void nsexec(void) /* not every C library gives it main's arguments */
{
	const char *marker = environ == NULL ? NULL : environ[0];
	unsigned namespaces = 0;
	int first, memory, end = 0;
	if (marker == NULL || strncmp(marker, PLAN_MARKER, sizeof(PLAN_MARKER) - 1) != 0)
		return;
	for (int i = 0; i < SLOT_COUNT; i++)
		stage.slots[i] = -1;
	if (sscanf(marker + sizeof(PLAN_MARKER) - 1, "%d,%x,%n", &first, &namespaces, &end) < 1)
		_exit(1);
	stage.socket = first;
	memory = first + 1;
	/* Hidden before anything of the container is touched: a process of it
	 * may see us by a joined pid namespace (CVE-2016-9962). */
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_NAME, STAGE_NAME);
	clean_signals();
	umask(0); /* modes in the plan are exact */
	fcntl(stage.socket, F_SETFD, FD_CLOEXEC);
	fcntl(memory, F_SETFD, FD_CLOEXEC);
	close(first + 2); /* the program; the runtime has it longer, since who closes it last waits for the kernel */
	make_namespaces(&stage, (int)namespaces, end > 0 ? marker + sizeof(PLAN_MARKER) - 1 + end : NULL);
	await(&stage);
	map_plan(&stage, memory);
	apply(&stage);
}
