#define _GNU_SOURCE
#include "linux_fanotify.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fanotify.h>
#include <stddef.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PRE_ACCESS 0x00100000 /* Linux 6.14 */
#define IGNORE_SURVIVING (0x400 | FAN_MARK_IGNORED_SURV_MODIFY) /* FAN_MARK_IGNORE_SURV, Linux 6.0 */
#define EVICTABLE 0x200 /* FAN_MARK_EVICTABLE, Linux 5.19 */
#define PRE_CONTENT_CLASS 0x8
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#define EMPTY_FROM 4 /* MOVE_MOUNT_F_EMPTY_PATH */
#define EMPTY_TO 0x40 /* MOVE_MOUNT_T_EMPTY_PATH */

const uint64_t PASSHSM_FAN_PRE_ACCESS = PRE_ACCESS, PASSHSM_FAN_OPEN_PERM = FAN_OPEN_PERM,
               PASSHSM_FAN_Q_OVERFLOW = FAN_Q_OVERFLOW;
const unsigned PASSHSM_FAN_ALLOW = FAN_ALLOW, PASSHSM_FAN_DENY = FAN_DENY;

_Static_assert(sizeof(struct passhsm_fan_event) == FAN_EVENT_METADATA_LEN, "the kernel's layout");
_Static_assert(offsetof(struct passhsm_fan_event, fd) == offsetof(struct fanotify_event_metadata, fd), "the kernel's layout");
_Static_assert(FANOTIFY_METADATA_VERSION == PASSHSM_FAN_METADATA_VERSION, "the version that is parsed");
_Static_assert(sizeof(struct passhsm_fan_range) == 24, "the kernel's layout");

int passhsm_fanotify_group(void)
{
    return fanotify_init(PRE_CONTENT_CLASS | FAN_CLOEXEC | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS | FAN_REPORT_TID,
        O_RDONLY | O_LARGEFILE | O_CLOEXEC | O_NOATIME);
}

int passhsm_fanotify_mark_mount(int group, uint64_t mask, int directory, const char *name)
{
    return fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_MOUNT, mask, directory, name);
}

int passhsm_fanotify_mark_file_system(int group, uint64_t mask, int directory, const char *name)
{
    return fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, mask, directory, name);
}

int passhsm_fanotify_ignore_mount(int group, uint64_t mask, int directory, const char *name)
{
    return fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_MOUNT | IGNORE_SURVIVING, mask, directory, name);
}

int passhsm_fanotify_ignore(int group, uint64_t mask, int file)
{
    return fanotify_mark(group, FAN_MARK_ADD | IGNORE_SURVIVING | EVICTABLE, mask, file, NULL);
}

int passhsm_fanotify_unignore(int group, uint64_t mask, int file)
{
    return fanotify_mark(group, FAN_MARK_REMOVE | IGNORE_SURVIVING, mask, file, NULL);
}

int passhsm_fanotify_answer(int group, int32_t event, uint32_t response)
{
    struct fanotify_response answer = { .fd = event, .response = response };
    return write(group, &answer, sizeof answer) == sizeof answer ? 0 : -1;
}

int passhsm_attach_mount(int tree, int place)
{
    return (int)syscall(SYS_move_mount, tree, "", place, "", EMPTY_FROM | EMPTY_TO);
}

int passhsm_make_unbindable(const char *path)
{
    return mount(NULL, path, NULL, MS_PRIVATE, NULL) ? -1 : mount(NULL, path, NULL, MS_UNBINDABLE, NULL);
}

#define MOST_DESCRIPTORS 4

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
};

long passhsm_send_descriptors(int socket, const void *bytes, size_t size, const int *descriptors, int count)
{
    union control control = { 0 };
    struct iovec part = { .iov_base = (void *)bytes, .iov_len = size };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count < 0 || count > MOST_DESCRIPTORS) {
        errno = EINVAL;
        return -1;
    }
    if (count > 0) {
        size_t length = (size_t)count * sizeof(int);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(length);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(length);
        memcpy(CMSG_DATA(header), descriptors, length);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

long passhsm_receive_descriptors(int socket, void *bytes, size_t size, int *descriptors, int *count)
{
    union control control;
    struct iovec part = { .iov_base = bytes, .iov_len = size };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes };
    *count = 0;
    long result = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (result < 0) return result;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        *count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors, CMSG_DATA(header), (size_t)*count * sizeof(int));
    }
    return result;
}

int passhsm_memfd(const char *name) { return memfd_create(name, MFD_CLOEXEC); }
int passhsm_dup_to(int from, int to) { return dup3(from, to, O_CLOEXEC); }
void passhsm_store_release(uint32_t *address, uint32_t value) { __atomic_store_n(address, value, __ATOMIC_RELEASE); }

#ifdef SYS_open
const long PASSHSM_SYS_OPEN = SYS_open;
#else
const long PASSHSM_SYS_OPEN = -1;
#endif
const long PASSHSM_SYS_OPENAT = SYS_openat, PASSHSM_SYS_EXECVE = SYS_execve, PASSHSM_SYS_EXECVEAT = SYS_execveat,
           PASSHSM_SYS_TRUNCATE = SYS_truncate, PASSHSM_SYS_READ = SYS_read, PASSHSM_SYS_PREAD = SYS_pread64,
           PASSHSM_SYS_READV = SYS_readv, PASSHSM_SYS_PREADV = SYS_preadv, PASSHSM_SYS_PREADV2 = SYS_preadv2,
           PASSHSM_SYS_SENDFILE = SYS_sendfile, PASSHSM_SYS_SPLICE = SYS_splice,
           PASSHSM_SYS_COPY_FILE_RANGE = SYS_copy_file_range, PASSHSM_SYS_IO_SUBMIT = SYS_io_submit,
           PASSHSM_SYS_IO_URING_ENTER = 426, PASSHSM_SYS_READAHEAD = SYS_readahead,
           PASSHSM_SYS_FADVISE = SYS_fadvise64, PASSHSM_SYS_MADVISE = SYS_madvise, PASSHSM_SYS_MMAP = SYS_mmap,
           PASSHSM_SYS_NANOSLEEP = SYS_nanosleep, PASSHSM_SYS_CLOCK_NANOSLEEP = SYS_clock_nanosleep,
           PASSHSM_SYS_PPOLL = SYS_ppoll, PASSHSM_SYS_PSELECT = SYS_pselect6,
           PASSHSM_SYS_EPOLL_PWAIT = SYS_epoll_pwait, PASSHSM_SYS_FUTEX = SYS_futex, PASSHSM_SYS_WAIT4 = SYS_wait4,
           PASSHSM_SYS_WAITID = SYS_waitid, PASSHSM_SYS_SIGSUSPEND = SYS_rt_sigsuspend,
           PASSHSM_SYS_SIGTIMEDWAIT = SYS_rt_sigtimedwait;
// Newer machines have the general forms of these only.
#ifdef SYS_poll
const long PASSHSM_SYS_POLL = SYS_poll, PASSHSM_SYS_SELECT = SYS_select, PASSHSM_SYS_EPOLL_WAIT = SYS_epoll_wait;
#else
const long PASSHSM_SYS_POLL = -1, PASSHSM_SYS_SELECT = -1, PASSHSM_SYS_EPOLL_WAIT = -1;
#endif
