/*
 * startContainer hooks: programs of the image, run by the process itself before its
 * command. What the process may not do they may not either, and nobody has to enter
 * the container for them, which a caller who is not root could not do yet.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stage.h"

static int64_t milliseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for the hook's end, until `end` if that is not 0. SIGCHLD is blocked. */
static int wait_hook(struct stage *s, pid_t pid, int64_t end, const sigset_t *ends)
{
	int status;
	for (;;) {
		pid_t ended = waitpid(pid, &status, WNOHANG);
		if (ended < 0 && errno != EINTR)
			return -1;
		if (ended == pid)
			break;
		int64_t left = end ? end - milliseconds() : 0;
		struct timespec patience = { .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };
		if (end && left <= 0) {
			/* One that has become somebody else may not be ours to
			 * kill, nor to wait for: it goes with the container. */
			kill(-pid, SIGKILL); /* its session, as far as that has stayed one group */
			if (kill(pid, SIGKILL) == 0)
				waitpid(pid, &status, 0);
			return fail(s, WHERE_HOOK_TIMEOUT, ETIMEDOUT);
		}
		if (sigtimedwait(ends, NULL, end ? &patience : NULL) < 0 && errno != EAGAIN && errno != EINTR)
			return -1; /* a filter that notifies may have it so */
	}
	if (status == 0)
		return 0;
	return fail(s, WHERE_HOOK, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* The child goes on with the hook's operations, in a session of its own, and tells
 * nobody what it fails at but the hook's output. */
static int become_hook(struct stage *s, const struct plan_op *op)
{
	close_fd(s->socket);
	s->socket = -1;
	close_fd(s->slots[SLOT_REPORT]);
	s->slots[SLOT_REPORT] = -1;
	s->end = s->index + 1 + (uint32_t)op->num[0];
	snprintf(s->command, sizeof(s->command), "%s", op_text(s, op, 0));
	setsid();
	if (dup2((int)op->num[2], STDIN_FILENO) < 0 || dup2((int)op->num[3], STDOUT_FILENO) < 0 || dup2((int)op->num[3], STDERR_FILENO) < 0)
		return -1;
	return 0;
}

int op_hook(struct stage *s, const struct plan_op *op)
{
	int input = (int)op->num[2], output = (int)op->num[3];
	int64_t end = op->num[1] ? milliseconds() + (int64_t)(op->num[1] & INT32_MAX) : 0;
	sigset_t ends;
	if (op->num[0] == 0 || op->num[0] >= s->end - s->index)
		return fail(s, WHERE_PLAN, EINVAL);
	if (lseek(input, 0, SEEK_SET) < 0 || ftruncate(output, 0) < 0 || lseek(output, 0, SEEK_SET) < 0)
		return -1;
	sigemptyset(&ends);
	sigaddset(&ends, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	int result = pid < 0 ? -1 : pid == 0 ? become_hook(s, op) : wait_hook(s, (pid_t)pid, end, &ends);
	sigprocmask(SIG_UNBLOCK, &ends, NULL);
	if (pid != 0 && result == 0) {
		s->index += (uint32_t)op->num[0];
		s->hooks++;
	}
	return result;
}

/* Lets `start` go, which has waited for the hooks. */
int op_started(struct stage *s, const struct plan_op *op)
{
	(void)op;
	tell(s, MESSAGE_READY, 0);
	close_fd(s->slots[SLOT_REPORT]);
	s->slots[SLOT_REPORT] = -1;
	return 0;
}
