/* What nsexec.c, path.c, mount.c, copy.c, process.c and hook.c share: the state of one run. */
#ifndef ENGINED_STAGE_H
#define ENGINED_STAGE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan.h"

struct stage {
	unsigned char *plan; /* private writable mapping */
	const struct plan_op *ops;
	uint32_t index; /* of the operation at work */
	uint32_t end;   /* of the operations that are ours */
	uint32_t hooks; /* done */
	int socket;     /* to the parent, -1 once it let go */
	uint32_t where; /* enum plan_where of the failure at hand */
	int slots[SLOT_COUNT];
	bool target_made;  /* the last OP_TARGET made its last component */
	bool tree_is_source; /* SLOT_TREE is what to bind, for want of open_tree */
	bool has_loopback; /* done before the plan was known, as is */
	bool has_keyring;  /* this */
	bool has_terminal; /* stdio is that of OP_TERMINAL */
	bool in_directory; /* OP_CHDIR worked */
	char **argv;
	char **envp;
	uint32_t env_count;
	char command[PATH_MAX];
	char home[PATH_MAX + sizeof("HOME=")];
};

/* What getdents64(2) gives; not every C library has it. */
struct directory_entry {
	uint64_t inode;
	int64_t offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

/* An operation returns 0, or -1 with errno and s->where set. */
typedef int (*operation)(struct stage *s, const struct plan_op *op);

/* nsexec.c */
const char *op_text(const struct stage *s, const struct plan_op *op, int i);
void *op_blob(const struct stage *s, const struct plan_op *op);
int fail(struct stage *s, uint32_t where, int error);
int keep(struct stage *s, int slot, int fd);
int tell(struct stage *s, uint32_t type, int64_t value);
int await(struct stage *s);

/* path.c */
int resolve(struct stage *s, const char *path, bool no_symlinks);
int resolve_or_make(struct stage *s, const char *path, bool no_symlinks, int target, unsigned mode);
int open_procfs(struct stage *s);
int open_of_procfs(int proc, const char *path, int flags);
int resolve_parent(struct stage *s, const char *path, const char **name);
int reopen(struct stage *s, int fd, int flags);
bool on_file_system(int fd, long magic);
void close_fd(int fd);

/* mount.c */
int op_propagation(struct stage *s, const struct plan_op *op);
int op_root(struct stage *s, const struct plan_op *op);
int op_root_here(struct stage *s, const struct plan_op *op);
int op_target(struct stage *s, const struct plan_op *op);
int op_mount(struct stage *s, const struct plan_op *op);
void prepare_sysfs(struct stage *s);
void drop_sysfs(struct stage *s);
int op_tree(struct stage *s, const struct plan_op *op);
int op_attach(struct stage *s, const struct plan_op *op);
int op_attr(struct stage *s, const struct plan_op *op);
int op_mknod(struct stage *s, const struct plan_op *op);
int op_symlink(struct stage *s, const struct plan_op *op);
int op_mask(struct stage *s, const struct plan_op *op);
int op_readonly(struct stage *s, const struct plan_op *op);
int op_pivot(struct stage *s, const struct plan_op *op);
int op_move_root(struct stage *s, const struct plan_op *op);
int op_chroot(struct stage *s, const struct plan_op *op);
int bind_onto(struct stage *s, int source, int target);

/* copy.c */
int op_copy_up(struct stage *s, const struct plan_op *op);

/* hook.c */
int op_hook(struct stage *s, const struct plan_op *op);
int op_started(struct stage *s, const struct plan_op *op);

/* process.c */
int join_keyring(const char *name);
int op_keyring(struct stage *s, const struct plan_op *op);
int op_setsid(struct stage *s, const struct plan_op *op);
int op_terminal(struct stage *s, const struct plan_op *op);
int op_control(struct stage *s, const struct plan_op *op);
int op_stdio_owner(struct stage *s, const struct plan_op *op);
int op_personality(struct stage *s, const struct plan_op *op);
int op_affinity(struct stage *s, const struct plan_op *op);
int op_memory_policy(struct stage *s, const struct plan_op *op);
int op_scheduler(struct stage *s, const struct plan_op *op);
int op_ioprio(struct stage *s, const struct plan_op *op);
int op_rlimit(struct stage *s, const struct plan_op *op);
int op_umask(struct stage *s, const struct plan_op *op);
int op_chdir(struct stage *s, const struct plan_op *op);
int op_bounding(struct stage *s, const struct plan_op *op);
int op_user(struct stage *s, const struct plan_op *op);
int op_caps(struct stage *s, const struct plan_op *op);
int op_no_new_privs(struct stage *s, const struct plan_op *op);
int op_home(struct stage *s, const struct plan_op *op);
int op_env(struct stage *s, const struct plan_op *op);
int op_args(struct stage *s, const struct plan_op *op);
int op_lookup(struct stage *s, const struct plan_op *op);
int op_cloexec(struct stage *s, const struct plan_op *op);
int op_await_start(struct stage *s, const struct plan_op *op);
int op_seccomp(struct stage *s, const struct plan_op *op);
int op_exec(struct stage *s, const struct plan_op *op);

#endif
