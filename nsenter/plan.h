/*
 * The plan: what the child does between clone and execve, as a flat list of
 * operations. Go compiles it (package libcontainer), nsexec.c applies it one
 * by one and decides nothing. Both compilers read this header, Go by cgo.
 *
 * A plan is one memory file:
 *
 *	struct plan_header
 *	struct plan_op [op_count]
 *	blobs   8-byte aligned, each belongs to one operation
 *	texts   NUL-terminated strings; offset 0 means "none"; the last byte is NUL
 *
 * Offsets count from the start of the file. A plan lives for one call of one
 * binary, so a change of layout only needs another PLAN_VERSION.
 */
#ifndef ENGINED_PLAN_H
#define ENGINED_PLAN_H

#include <stdint.h>

#define PLAN_MAGIC 0x4e504c31u /* "1LPN" */
#define PLAN_VERSION 1
#define PLAN_MAX_SIZE (64u << 20)

struct plan_header {
	uint32_t magic;
	uint16_t version;
	uint16_t op_size; /* sizeof(struct plan_op) */
	uint32_t op_count;
	uint32_t size; /* of the whole file */
};

struct plan_op {
	uint16_t code;  /* enum plan_code */
	uint16_t flags; /* enum plan_flag */
	uint32_t blob;
	uint32_t blob_size;
	uint32_t text[3];
	uint64_t num[4];
};

_Static_assert(sizeof(struct plan_header) == 16, "plan_header's layout");
_Static_assert(sizeof(struct plan_op) == 56, "plan_op's layout");

/* Descriptors that one operation leaves for a later one. */
enum plan_slot {
	SLOT_NONE,
	SLOT_ROOT,   /* the container's root mount */
	SLOT_TARGET, /* the mount point found by OP_TARGET */
	SLOT_TREE,   /* the mount made by OP_TREE, detached or attached */
	SLOT_EMPTY,  /* an empty read-only directory that masks others */
	SLOT_NULL,   /* the host's /dev/null, verified, that masks files */
	SLOT_PROC,   /* the host's /proc, verified */
	SLOT_SELF,   /* this process's directory in it */
	SLOT_FIFO,   /* exec.fifo */
	SLOT_CONSOLE, /* the socket that takes the terminal's master */
	SLOT_CONTAINER, /* pidfd of the container's init */
	SLOT_SYSFS,  /* a read-only sysfs of a new network namespace, not mounted yet */
	SLOT_REPORT, /* the fifo at which start hears what became of the hooks */
	SLOT_COUNT
};

/* Operations. t = text, n = num, b = blob. */
enum plan_code {
	OP_INVALID,

	/* Descriptors. */
	OP_ADOPT, /* slot n0 = inherited descriptor n1 */
	OP_PROC,  /* opens and verifies SLOT_PROC and SLOT_SELF */
	OP_NULL,  /* opens and verifies SLOT_NULL */

	/* Namespaces and synchronisation. */
	OP_WRITE,    /* writes t1 to the host's file t0, inherited as n0 if not 0 (before OP_PIVOT only) */
	OP_PROC_WRITE, /* writes t1 to t0 below SLOT_PROC, or SLOT_SELF with FLAG_SELF; with FLAG_OWN below the root's /proc */
	OP_SETNS,    /* joins t0 as type n0 (CLONE_NEW*) */
	OP_SETNS_ALL, /* joins the namespaces n0 of SLOT_CONTAINER at once */
	OP_UNSHARE,  /* unshares n0 */
	OP_CLONE,    /* goes on in a child with the same parent; reports its pid */
	OP_SYNC,     /* waits for the parent to do step n0; with FLAG_VISIBLE dumpable meanwhile */
	OP_LOOPBACK, /* brings lo up */
	OP_HOSTNAME, /* t0 */
	OP_DOMAINNAME, /* t0 */

	/* The root file system. Paths are resolved inside SLOT_ROOT. */
	OP_PROPAGATION, /* t0 absolute, outside the root until OP_PIVOT; n0 = MS_* */
	OP_ROOT,     /* mounts host directory t0 on itself: SLOT_ROOT; with FLAG_MOUNTED it is one already */
	OP_ROOT_HERE, /* SLOT_ROOT = "/", for exec */
	OP_TARGET,   /* t0 -> SLOT_TARGET; n0 = enum plan_target, n1 = mode if made */
	OP_COPY_UP,  /* copies what SLOT_TARGET held into the mount that now covers it, t0 */
	OP_MOUNT,    /* t0 source, t1 type, t2 data, n0 = MS_* on SLOT_TARGET */
	OP_TREE,     /* SLOT_TREE = clone of host path t0; n0 = 1 recursive */
	OP_ATTACH,   /* SLOT_TREE onto SLOT_TARGET */
	OP_ATTR,     /* on slot n3: set n0, clear n1 (MOUNT_ATTR_*), propagation n2 (MS_*) */
	OP_MKNOD,    /* t0; n0 = mode with type, n1 = dev_t, n2 = uid, n3 = gid */
	OP_SYMLINK,  /* t0 -> path t1 */
	OP_MASK,     /* hides t0 if it is there */
	OP_READONLY, /* makes t0 read-only if it is there */
	OP_PIVOT,    /* SLOT_ROOT becomes / by pivot_root */
	OP_MOVE_ROOT, /* SLOT_ROOT, mounted at t0, becomes / by MS_MOVE and chroot */
	OP_CHROOT,   /* SLOT_ROOT becomes / by chroot alone */

	/* The process. */
	OP_KEYRING,  /* joins a new session keyring named t0 */
	OP_SETSID,
	OP_TERMINAL, /* new pty of SLOT_ROOT's devpts as stdio; master to SLOT_CONSOLE; n0 rows, n1 columns; with n2 it leaves line ends alone */
	OP_STDIO_OWNER, /* gives stdio to uid n0 */
	OP_PERSONALITY, /* n0 */
	OP_AFFINITY, /* b = CPU mask, none: every CPU that the cgroup has */
	OP_MEMORY_POLICY, /* n0 = MPOL_*, b = node mask */
	OP_SCHEDULER, /* b = struct sched_attr */
	OP_IOPRIO,   /* n0 = class and priority */
	OP_RLIMIT,   /* n0 = RLIMIT_*, n1 soft, n2 hard */
	OP_UMASK,    /* n0 */
	OP_CHDIR,    /* t0; verifies that it is inside the root */
	OP_BOUNDING, /* drops capabilities that are not in n0 */
	OP_USER,     /* n0 = uid, n1 = gid, b = uint32_t groups[] if FLAG_GROUPS; keeps capabilities */
	OP_CAPS,     /* n0 effective, n1 permitted, n2 inheritable, n3 ambient */
	OP_NO_NEW_PRIVS,
	OP_HOME,     /* adds HOME of uid n0 from the container's /etc/passwd */
	OP_ENV,      /* b = room for n0 + 2 pointers, then n0 strings */
	OP_ARGS,     /* b = room for n0 + 1 pointers, then n0 strings */
	OP_LOOKUP,   /* finds the command t0 along PATH t1 */
	OP_CLOEXEC,  /* marks every descriptor from n0 on, or to n1 if not 0, close-on-exec */
	OP_READY,    /* tells the parent that all is done and lets go of it */
	OP_AWAIT_START, /* reads a byte from SLOT_FIFO */
	OP_SECCOMP,  /* b = struct sock_filter[], n0 = flags; with FLAG_LISTENER the parent takes the listener */
	OP_EXEC,
	OP_AWAIT,    /* waits until the parent has done what it does meanwhile, or goes on if it has */
	OP_HOOK,     /* a child does the next n0 operations, which end in OP_EXEC, in at most n1 ms if not 0; stdin n2, output n3 */
	OP_DROP,     /* closes what is the host's, before anybody in the container can look */
	OP_CONTROL,  /* makes stdin the session's controlling terminal */
	OP_STARTED,  /* tells start, by SLOT_REPORT, that the hooks are done */
	OP_COUNT
};

/* Bits of plan_op.flags. */
enum plan_flag {
	FLAG_OPTIONAL = 1, /* a failure is not one */
	FLAG_RECURSIVE = 2,
	FLAG_NO_SYMLINKS = 4, /* OP_TARGET: no link anywhere in the path */
	FLAG_PROC_INSIDE = 8, /* OP_TARGET: may be inside procfs */
	FLAG_REPLACE = 16,  /* OP_SYMLINK: what is there is removed first */
	FLAG_BIND = 32,     /* OP_MKNOD: bind the host's node */
	FLAG_SELF = 64,     /* OP_PROC_WRITE */
	FLAG_CONSOLE = 128, /* OP_TERMINAL: bind the pty on /dev/console */
	FLAG_GROUPS = 256,  /* OP_USER: set the groups */
	FLAG_AFTER_USER = 512, /* OP_CHDIR: second try, nothing to do if the first worked */
	FLAG_KEEP_MODE = 1024, /* OP_MOUNT: tmpfs takes the mode of the directory that was there */
	FLAG_LISTENER = 2048, /* OP_SECCOMP */
	FLAG_MOUNTED = 4096, /* OP_ROOT */
	FLAG_VISIBLE = 8192, /* OP_SYNC */
	FLAG_OWN = 16384,   /* OP_PROC_WRITE: below SLOT_PROC all the same where the root's /proc cannot be used */
	FLAG_EXACT = 32768  /* OP_MKNOD: what is there, or bound, must be that node */
};

/* What OP_TARGET expects, and makes if it is not there. */
enum plan_target { TARGET_DIRECTORY, TARGET_FILE };

/* Messages on the socket, both ways: one struct per packet. */
enum plan_message {
	MESSAGE_PLAN = 1, /* to the child: the plan is in the memory file */
	MESSAGE_CONTINUE, /* to the child: the step is done */
	MESSAGE_STEP,     /* to the parent: do step `value` */
	MESSAGE_PID,      /* to the parent: the child goes on as pid `value` */
	MESSAGE_LISTENER, /* to the parent: take the child's descriptor `value` to the seccomp agent */
	MESSAGE_READY,    /* to the parent: nothing left that can fail but execve; to start: the hooks are done */
	MESSAGE_ERROR,    /* to the parent, or start: operation `op` failed, which if a hook is that number `value` */
	MESSAGE_BORN      /* to the parent: the marker's namespaces are made */
};

/* Where in an operation it failed. */
enum plan_where {
	WHERE_OP,
	WHERE_RESOLVE,   /* resolving or making the path inside the root */
	WHERE_STAT,      /* OP_LOOKUP: the command is not there */
	WHERE_ACCESS,    /* OP_LOOKUP: not executable */
	WHERE_DIRECTORY, /* OP_LOOKUP: a directory */
	WHERE_PATH,      /* OP_LOOKUP: not found along PATH */
	WHERE_UNSAFE,    /* something that must be the kernel's is not */
	WHERE_OUTSIDE,   /* OP_CHDIR: the directory is outside the root */
	WHERE_PLAN,      /* the plan itself is malformed */
	WHERE_BIRTH,     /* before the plan: making the namespaces of the marker */
	WHERE_HOOK,      /* OP_HOOK: `error` is its exit status, as a shell's; its output follows as a packet of its own */
	WHERE_HOOK_TIMEOUT /* OP_HOOK: it took too long; its output follows */
};

struct plan_message_packet {
	uint32_t type;  /* enum plan_message */
	uint32_t op;    /* index */
	int32_t error;  /* errno */
	uint32_t where; /* enum plan_where */
	int64_t value;
};

_Static_assert(sizeof(struct plan_message_packet) == 24, "plan_message_packet's layout");

/*
 * The child is told by its environment's first and only entry:
 * PLAN_MARKER followed by the number of the first of three descriptors: the
 * socket, the memory file, and the program itself. A comma and CLONE_NEW* in hex
 * may follow: namespaces that it makes before it waits for the plan.
 */
#define PLAN_MARKER "_OCIRUN_STAGE="

#define PLAN_MAX_OUTPUT 4096 /* bytes of a failed hook's output that are told */

#define STAGE_NAME "ocirun/init" /* of the process, until execve, which gives none with a slash */

#endif
