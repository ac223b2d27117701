/* System calls without a wrapper that Swift sees. */
#ifndef PASSHSM_LINUX_CALLS_H
#define PASSHSM_LINUX_CALLS_H
#include <stdint.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/xattr.h>

/* A record of getdents64(2); glibc has no public declaration with d_off. The name follows, NUL-terminated. */
struct passhsm_dirent {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
} __attribute__((packed));

long passhsm_getdents64(int fd, void *buffer, size_t size);
int passhsm_renameat2(int from, const char *name, int to, const char *newname, unsigned flags);
int passhsm_fallocate(int fd, int mode, int64_t offset, int64_t length);
int64_t passhsm_copy_file_range(int in, int64_t *in_offset, int out, int64_t *out_offset, size_t length, unsigned flags);
int passhsm_syncfs(int fd);
int passhsm_pipe_cloexec(int fds[2]);
/* unshare(CLONE_FS): the calling thread gets an umask of its own. */
int passhsm_unshare_fs(void);
/* prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP): setfsuid(2) on this thread, and on those it makes, keeps the
 * capabilities. */
int passhsm_keep_capabilities(void);
/* The effective capabilities of this thread, bit n for capability n (capget(2), version 3). */
int passhsm_effective_capabilities(uint64_t *bits);
int passhsm_pidfd_open(int pid);
int passhsm_gettid(void);
/* prctl(PR_SET_NAME) */
int passhsm_name_thread(const char *name);
int passhsm_tgkill(int tid, int signal);

/* Device numbers: macros in glibc. */
unsigned passhsm_major(uint64_t device);
unsigned passhsm_minor(uint64_t device);
uint64_t passhsm_makedev(unsigned major, unsigned minor);

#endif
