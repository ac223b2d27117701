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
#include <time.h>

/* A record of getdents64(2); glibc has no public declaration with d_off. The name follows, NUL-terminated. */
struct passhsm_dirent {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
} __attribute__((packed));

long passhsm_getdents64(int fd, void *buffer, size_t size);
int passhsm_renameat2(int from, const char *name, int to, const char *newname, unsigned flags);
int passhsm_fallocate(int fd, int mode, off_t offset, off_t length);
ssize_t passhsm_copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t length, unsigned flags);
/* ioctl(FICLONERANGE) with the same offset in both: `to` shares these blocks of `from`. */
int passhsm_clone_range(int to, int from, off_t offset, size_t length);
/* malloc_trim(3): the allocator's free pages go back to the system. <malloc.h> is not in Swift's Glibc. */
void passhsm_trim_memory(void);
/* mallopt(3), M_ARENA_MAX: so many arenas at most. To be called before there are threads. */
void passhsm_limit_arenas(int count);
int passhsm_dup3(int from, int to);
int passhsm_syncfs(int fd);
/* F_SETLEASE, F_RDLCK and at once F_UNLCK. Who opens the file in between waits for that moment; the signal is one that
 * is ignored (SIGIO would end the process). */
int passhsm_try_read_lease(int fd);
/* F_SETLEASE, F_WRLCK: EAGAIN while anyone else has the file open or mapped. Who opens it waits for passhsm_drop_lease(). */
int passhsm_take_write_lease(int fd);
int passhsm_drop_lease(int fd);
/* F_GETLEASE: 0 also while somebody waits for the end of the write lease that was taken. */
int passhsm_has_write_lease(int fd);
/* sync_file_range(2) over the whole file: waits, and tells errors, but starts nothing. */
int passhsm_wait_for_writeback(int fd);
/* statx(STATX_BTIME): 0 with the time of birth; ENODATA where the file system keeps none. */
int passhsm_birth_time(int fd, struct timespec *result);
/* statx(2): 1 when `name` is immutable or append-only, which forbids to rename it. */
int passhsm_is_fixed(int directory, const char *name);
/* ioctl(2) with a pointer, which Swift cannot call because it is variadic. */
int passhsm_ioctl(int fd, unsigned long request, void *argument);
/* The commands of ioctl_iflags(2) and ioctl_xfs_fsgetxattr(2): macros with a cast. */
extern const unsigned PASSHSM_FS_IOC_GETFLAGS, PASSHSM_FS_IOC_SETFLAGS, PASSHSM_FS_IOC_FSGETXATTR,
    PASSHSM_FS_IOC_FSSETXATTR;
extern const unsigned PASSHSM_FS_JOURNAL_DATA_FL;
/* flock(2): in Swift the structure of the same name hides the function. */
int passhsm_flock(int fd, int operation);
/* f_type of fstatfs(2), 0 on failure. */
uint64_t passhsm_file_system_type(int fd);
/* XFS_IOC_GET_RESBLKS (ioctl_xfs_getresblks(2)): the reserve's size, and how much of it is not in use, in blocks. */
int passhsm_xfs_reserve(int fd, uint64_t *size, uint64_t *unused);
/* XFS_IOC_SET_RESBLKS: needs CAP_SYS_ADMIN. */
int passhsm_set_xfs_reserve(int fd, uint64_t size);
int passhsm_pipe_cloexec(int fds[2]);
/* unshare(CLONE_FS): the calling thread gets an umask of its own. */
int passhsm_unshare_fs(void);
/* prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP): setfsuid(2) on this thread, and on those it makes, keeps the
 * capabilities. */
int passhsm_keep_capabilities(void);
/* The effective capabilities of this thread, bit n for capability n (capget(2), version 3). */
int passhsm_effective_capabilities(uint64_t *bits);
/* Leaves this thread no capabilities but those of `bits`, in all its sets but the bounding one (capset(2)). */
int passhsm_keep_only(uint64_t bits);
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
