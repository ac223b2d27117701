#define _GNU_SOURCE
#include "linux_calls.h"
#include "linux_constants.h"

#include <fcntl.h>
#include <errno.h>
#include <signal.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/securebits.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

const int PASSHSM_O_PATH = O_PATH, PASSHSM_O_TMPFILE = O_TMPFILE, PASSHSM_O_DIRECT = O_DIRECT,
          PASSHSM_O_NOATIME = O_NOATIME;
const int PASSHSM_AT_EMPTY_PATH = AT_EMPTY_PATH;
const unsigned PASSHSM_RENAME_WHITEOUT = RENAME_WHITEOUT;
const int PASSHSM_SEEK_DATA = SEEK_DATA, PASSHSM_SEEK_HOLE = SEEK_HOLE;
const int PASSHSM_FALLOC_KEEP_SIZE = FALLOC_FL_KEEP_SIZE, PASSHSM_FALLOC_PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE,
          PASSHSM_FALLOC_ZERO_RANGE = FALLOC_FL_ZERO_RANGE, PASSHSM_FALLOC_COLLAPSE_RANGE = FALLOC_FL_COLLAPSE_RANGE,
          PASSHSM_FALLOC_INSERT_RANGE = FALLOC_FL_INSERT_RANGE, PASSHSM_FALLOC_UNSHARE_RANGE = FALLOC_FL_UNSHARE_RANGE;

const unsigned PASSHSM_FS_IOC_GETFLAGS = FS_IOC_GETFLAGS, PASSHSM_FS_IOC_SETFLAGS = FS_IOC_SETFLAGS,
               PASSHSM_FS_IOC_FSGETXATTR = FS_IOC_FSGETXATTR, PASSHSM_FS_IOC_FSSETXATTR = FS_IOC_FSSETXATTR;
const unsigned PASSHSM_FS_JOURNAL_DATA_FL = FS_JOURNAL_DATA_FL;
const unsigned long PASSHSM_ST_NOSUID = ST_NOSUID, PASSHSM_ST_NODEV = ST_NODEV, PASSHSM_ST_NOEXEC = ST_NOEXEC;

_Static_assert(sizeof(struct passhsm_dirent) == 19, "the kernel's linux_dirent64 has its name at 19");
_Static_assert(sizeof(off_t) == 8, "64-bit offsets");

int passhsm_is_fixed(int directory, const char *name)
{
    struct statx status;
    memset(&status, 0, sizeof status);
    if (statx(directory, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &status)) return -1;
    return (status.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND)) != 0;
}

long passhsm_getdents64(int fd, void *buffer, size_t size) { return syscall(SYS_getdents64, fd, buffer, size); }

int passhsm_birth_time(int fd, struct timespec *result)
{
    struct statx status;
    memset(&status, 0, sizeof status);
    if (statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BTIME, &status)) return -1;
    if (!(status.stx_mask & STATX_BTIME)) {
        errno = ENODATA;
        return -1;
    }
    result->tv_sec = status.stx_btime.tv_sec;
    result->tv_nsec = status.stx_btime.tv_nsec;
    return 0;
}

int passhsm_ioctl(int fd, unsigned long request, void *argument) { return ioctl(fd, request, argument); }

int passhsm_renameat2(int from, const char *name, int to, const char *newname, unsigned flags)
{
    return (int)syscall(SYS_renameat2, from, name, to, newname, flags);
}

int passhsm_fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }

ssize_t passhsm_copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t length, unsigned flags)
{
    return copy_file_range(in, in_offset, out, out_offset, length, flags);
}

int passhsm_clone_range(int to, int from, off_t offset, size_t length)
{
    struct file_clone_range range = {
        .src_fd = from, .src_offset = (uint64_t)offset, .src_length = length, .dest_offset = (uint64_t)offset,
    };
    return ioctl(to, FICLONERANGE, &range);
}

int passhsm_flock(int fd, int operation) { return flock(fd, operation); }

uint64_t passhsm_file_system_type(int fd)
{
    struct statfs result;
    return fstatfs(fd, &result) ? 0 : (uint64_t)result.f_type;
}

void passhsm_trim_memory(void) { malloc_trim(0); }

void passhsm_limit_arenas(int count) { mallopt(M_ARENA_MAX, count); }

/* xfs_fs.h, which comes with XFS's programs: struct xfs_fsop_resblks. */
struct reserve {
    uint64_t size, unused;
};

int passhsm_xfs_reserve(int fd, uint64_t *size, uint64_t *unused)
{
    struct reserve reserve = {0};
    if (ioctl(fd, _IOR('X', 115, struct reserve), &reserve)) return -1;
    *size = reserve.size;
    *unused = reserve.unused;
    return 0;
}

int passhsm_set_xfs_reserve(int fd, uint64_t size)
{
    struct reserve reserve = {.size = size};
    return ioctl(fd, _IOWR('X', 114, struct reserve), &reserve);
}

int passhsm_dup3(int from, int to) { return dup3(from, to, O_CLOEXEC); }
int passhsm_syncfs(int fd) { return syncfs(fd); }

int passhsm_try_read_lease(int fd)
{
    if (fcntl(fd, F_SETSIG, SIGURG) || fcntl(fd, F_SETLEASE, F_RDLCK)) return -1;
    return fcntl(fd, F_SETLEASE, F_UNLCK);
}

int passhsm_take_write_lease(int fd)
{
    return fcntl(fd, F_SETSIG, SIGURG) || fcntl(fd, F_SETLEASE, F_WRLCK) ? -1 : 0;
}

int passhsm_drop_lease(int fd) { return fcntl(fd, F_SETLEASE, F_UNLCK); }
int passhsm_has_write_lease(int fd) { return fcntl(fd, F_GETLEASE) == F_WRLCK; }

int passhsm_wait_for_writeback(int fd) { return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE); }
int passhsm_pipe_cloexec(int fds[2]) { return pipe2(fds, O_CLOEXEC); }
int passhsm_unshare_fs(void) { return unshare(CLONE_FS); }
int passhsm_keep_capabilities(void) { return prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0); }

int passhsm_effective_capabilities(uint64_t *bits)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };
    if (syscall(SYS_capget, &header, data)) return -1;
    *bits = (uint64_t)data[1].effective << 32 | data[0].effective;
    return 0;
}

int passhsm_keep_only(uint64_t bits)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };
    if (syscall(SYS_capget, &header, data)) return -1;
    for (int half = 0; half < 2; half++) {
        uint32_t kept = (uint32_t)(bits >> 32 * half);
        data[half].effective &= kept;
        data[half].permitted &= kept;
        data[half].inheritable &= kept;
    }
    return (int)syscall(SYS_capset, &header, data);
}

int passhsm_pidfd_open(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
int passhsm_name_thread(const char *name) { return prctl(PR_SET_NAME, name); }
int passhsm_gettid(void) { return (int)syscall(SYS_gettid); }
int passhsm_tgkill(int tid, int signal) { return (int)syscall(SYS_tgkill, getpid(), tid, signal); }

unsigned passhsm_major(uint64_t device) { return major(device); }
unsigned passhsm_minor(uint64_t device) { return minor(device); }
uint64_t passhsm_makedev(unsigned major, unsigned minor) { return makedev(major, minor); }
