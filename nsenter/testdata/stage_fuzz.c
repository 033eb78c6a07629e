/*
 * The stage's interpreter as a server of plans, for FuzzInterpreter: compiled
 * with address and undefined behaviour sanitizers, it reads plans from standard
 * input (uint32_t size, bytes) and answers each with one byte.
 *
 * A plan is applied by a child in mount namespaces and a root of its own; the
 * server itself was made in a user namespace whose root is nobody on the host,
 * and in new ones of all other kinds. The plan lies in memory of exactly its
 * size, so that reading beyond it is seen. Two calls are not carried out, since
 * the sanitizers would not survive them: limits and filters, of which every
 * byte is read instead.
 */
#include "../nsexec.c"

#include <linux/filter.h>

#include <sys/resource.h>
#include <sys/time.h>
#include <sys/mount.h>
#include <sys/wait.h>

enum { REPORTED = 99 }; /* exit status of a child whose sanitizer found something */

const char *__asan_default_options(void) { return "exitcode=99:detect_leaks=0:handle_abort=1"; }
const char *__ubsan_default_options(void) { return "exitcode=99:halt_on_error=1:print_stacktrace=1"; }

static volatile unsigned seen;

static void read_all(const void *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		seen += ((const unsigned char *)data)[i];
}

int __wrap_setrlimit(int resource, const struct rlimit *limit);
int __wrap_setrlimit(int resource, const struct rlimit *limit)
{
	read_all(limit, sizeof(*limit));
	if (resource < 0 || resource > 15)
		return errno = EINVAL, -1;
	return 0;
}

/* A hook's child is the stage's own: what its sanitizer found is ours. */
pid_t __real_waitpid(pid_t pid, int *status, int options);
pid_t __wrap_waitpid(pid_t pid, int *status, int options);
pid_t __wrap_waitpid(pid_t pid, int *status, int options)
{
	pid_t ended = __real_waitpid(pid, status, options);
	if (stage.plan != NULL && ended > 0 && WIFEXITED(*status) && WEXITSTATUS(*status) == REPORTED)
		_exit(REPORTED);
	return ended;
}

long __real_syscall(long number, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f)
{
	if (number == SYS_seccomp) {
		const struct sock_fprog *program = (const void *)c;
		read_all(program->filter, program->len * sizeof(*program->filter));
		return errno = EINVAL, -1;
	}
	return __real_syscall(number, a, b, c, d, e, f);
}

static void must(int result, const char *what)
{
	if (result >= 0)
		return;
	perror(what);
	_exit(3);
}

/* The root that plans find: a few entries of each kind. */
static void lay_out_root(void)
{
	must(unshare(CLONE_NEWNS), "unshare");
	must(mount("tmpfs", "/tmp", "tmpfs", 0, "size=4m,nr_inodes=500"), "mounting a root");
	must(chdir("/tmp"), "entering it");
	must(chroot("."), "changing to it");
	mkdir("/proc", 0755);
	mkdir("/dev", 0755);
	mkdir("/a", 0755);
	mkdir("/a/b", 0755);
	mkdir("/etc", 0755);
	must(symlink("/a/b", "/link"), "symlink");
	must(symlink("loop", "/loop"), "symlink");
	must(symlink("/proc/self/fd/0", "/magic"), "symlink");
	int fd = open("/etc/passwd", O_CREAT | O_WRONLY, 0644);
	must(write(fd, "root:x:0:0:root:/root:/bin/sh\nnobody:x:7:7::/home/nobody:/x", 57) == 57 ? 0 : -1, "passwd");
	close(fd);
	must(mount("proc", "/proc", "proc", 0, NULL), "proc");
	mknod("/fifo", S_IFIFO | 0600, 0);
	mkdir("/dev/pts", 0755);
	must(mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666"), "devpts");
	must(symlink("pts/ptmx", "/dev/ptmx"), "ptmx");
}

/* What the parent would say, as often as it may be asked. */
static int parent_socket(void)
{
	struct plan_message_packet packet = { .type = MESSAGE_CONTINUE };
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), "socketpair");
	for (int i = 0; i < 64 && write(pair[1], &packet, sizeof(packet)) > 0; i++)
		;
	shutdown(pair[1], SHUT_WR);
	return pair[0];
}

static void child(const unsigned char *plan, size_t size)
{
	struct rlimit descriptors = { 64, 64 }, files = { 1 << 20, 1 << 20 };
	__real_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&descriptors, 0, 0, 0);
	__real_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, (long)&files, 0, 0, 0);
	int null = open("/dev/null", O_RDWR);
	must(dup2(null, 0), "standard input");
	must(dup2(null, 1), "standard output");
	lay_out_root();
	for (int i = 0; i < SLOT_COUNT; i++)
		stage.slots[i] = -1;
	stage.socket = parent_socket();
	stage.where = WHERE_PLAN;
	if (!valid_plan(plan, size))
		_exit(0);
	stage.plan = (unsigned char *)plan;
	stage.ops = (const void *)(plan + sizeof(struct plan_header));
	apply(&stage);
}

/* Whatever hangs (a fifo, a terminal) ends after a while, and its children. */
static void end_all(int number)
{
	(void)number;
	kill(-1, SIGKILL);
}

static unsigned char serve(const unsigned char *plan, size_t size)
{
	struct itimerval patience = { .it_value = { .tv_usec = 200000 }, .it_interval = { .tv_usec = 200000 } }, none = { 0 };
	unsigned char answer = 0;
	pid_t pid = fork();
	must(pid, "fork");
	if (pid == 0)
		child(plan, size);
	setitimer(ITIMER_REAL, &patience, NULL);
	for (;;) {
		int status;
		pid = waitpid(-1, &status, 0);
		if (pid < 0 && errno == EINTR)
			continue;
		if (pid < 0)
			break;
		if (WIFEXITED(status) && (WEXITSTATUS(status) == REPORTED || WEXITSTATUS(status) == 3))
			answer = (unsigned char)WEXITSTATUS(status);
		if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
			answer = (unsigned char)(100 + WTERMSIG(status));
	}
	setitimer(ITIMER_REAL, &none, NULL);
	return answer;
}

static void read_whole(void *data, size_t size)
{
	for (size_t have = 0; have < size;) {
		ssize_t n = read(0, (char *)data + have, size - have);
		if (n <= 0)
			_exit(0);
		have += (size_t)n;
	}
}

int main(void)
{
	struct sigaction action = { .sa_handler = end_all };
	uint32_t size;
	sigaction(SIGALRM, &action, NULL);
	close_range(3, ~0U, 0); /* plans write to descriptors: not to those of Go's fuzzer */
	must(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL), "making mounts private");
	for (;;) {
		read_whole(&size, sizeof(size));
		if (size > (1u << 20))
			return 2;
		unsigned char *plan = malloc(size ? size : 1);
		read_whole(plan, size);
		unsigned char answer = serve(plan, size);
		free(plan);
		if (write(1, &answer, 1) != 1)
			return 0;
	}
}
