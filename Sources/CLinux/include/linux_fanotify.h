/* fanotify(7) with pre-content events (Linux 6.14), which the distribution's headers do not have, and what goes with it:
 * attaching a mount, passing descriptors, memory that outlives its process. */
#ifndef PASSHSM_LINUX_FANOTIFY_H
#define PASSHSM_LINUX_FANOTIFY_H
#include <stddef.h>
#include <stdint.h>

extern const uint64_t PASSHSM_FAN_PRE_ACCESS, PASSHSM_FAN_OPEN_PERM, PASSHSM_FAN_Q_OVERFLOW;
extern const unsigned PASSHSM_FAN_ALLOW, PASSHSM_FAN_DENY;
/* FAN_DENY_ERRNO(): the errno stands above these bits. */
#define PASSHSM_FAN_ERRNO_SHIFT 24
#define PASSHSM_FAN_METADATA_VERSION 3
/* An information record of type FAN_EVENT_INFO_TYPE_RANGE. */
#define PASSHSM_FAN_INFO_RANGE 6

/* struct fanotify_event_metadata */
struct passhsm_fan_event {
    uint32_t event_len;
    uint8_t version, reserved;
    uint16_t metadata_len;
    uint64_t mask;
    int32_t fd, pid;
};

/* struct fanotify_event_info_range */
struct passhsm_fan_range {
    uint8_t info_type, pad;
    uint16_t length;
    uint32_t reserved;
    uint64_t offset, count;
};

/* fanotify_init(): a group of the class FAN_CLASS_PRE_CONTENT without limits, whose events name threads. Its descriptors
 * of files are for reading, and do not touch the access time; reading an event waits for whoever has a lease on its file. */
int passhsm_fanotify_group(void);
/* fanotify_mark() for the mount that `name` in `directory` is on. */
int passhsm_fanotify_mark_mount(int group, uint64_t mask, int directory, const char *name);
/* The same for its whole file system. */
int passhsm_fanotify_mark_file_system(int group, uint64_t mask, int directory, const char *name);
/* From now on nothing that comes through the mount of `directory` raises an event of `mask`. */
int passhsm_fanotify_ignore_mount(int group, uint64_t mask, int directory, const char *name);
/* Adds to (or takes from) what the group ignores of the inode that `file` is open on (not with O_PATH), until the kernel
 * forgets the inode. */
int passhsm_fanotify_ignore(int group, uint64_t mask, int file);
int passhsm_fanotify_unignore(int group, uint64_t mask, int file);
/* Answers the event of the number `event`. */
int passhsm_fanotify_answer(int group, int32_t event, uint32_t response);

/* move_mount(2): attaches a mount of passhsm_clone_tree() to the directory `place` (O_PATH). */
int passhsm_attach_mount(int tree, int place);
/* mount(MS_PRIVATE) and mount(MS_UNBINDABLE): the mount is not passed on, and cannot be cloned by a bind mount. */
int passhsm_make_unbindable(const char *path);

/* sendmsg(2) and recvmsg(2) with SCM_RIGHTS; at most 4 descriptors, received close-on-exec. `*count` is their number. */
long passhsm_send_descriptors(int socket, const void *bytes, size_t size, const int *descriptors, int count);
long passhsm_receive_descriptors(int socket, void *bytes, size_t size, int *descriptors, int *count);

/* memfd_create(MFD_CLOEXEC) */
int passhsm_memfd(const char *name);
/* dup3(O_CLOEXEC) */
int passhsm_dup_to(int from, int to);
/* An atomic store that no earlier store comes after. */
void passhsm_store_release(uint32_t *address, uint32_t value);

/* Numbers of system calls, -1 where the architecture lacks one. */
extern const long PASSHSM_SYS_OPEN, PASSHSM_SYS_OPENAT, PASSHSM_SYS_EXECVE, PASSHSM_SYS_EXECVEAT, PASSHSM_SYS_TRUNCATE,
    PASSHSM_SYS_READ, PASSHSM_SYS_PREAD, PASSHSM_SYS_READV, PASSHSM_SYS_PREADV, PASSHSM_SYS_PREADV2, PASSHSM_SYS_SENDFILE,
    PASSHSM_SYS_SPLICE, PASSHSM_SYS_COPY_FILE_RANGE, PASSHSM_SYS_IO_SUBMIT, PASSHSM_SYS_IO_URING_ENTER,
    PASSHSM_SYS_READAHEAD, PASSHSM_SYS_FADVISE, PASSHSM_SYS_MADVISE, PASSHSM_SYS_MMAP, PASSHSM_SYS_NANOSLEEP,
    PASSHSM_SYS_CLOCK_NANOSLEEP, PASSHSM_SYS_POLL, PASSHSM_SYS_PPOLL, PASSHSM_SYS_SELECT, PASSHSM_SYS_PSELECT,
    PASSHSM_SYS_EPOLL_WAIT, PASSHSM_SYS_EPOLL_PWAIT, PASSHSM_SYS_FUTEX, PASSHSM_SYS_WAIT4, PASSHSM_SYS_WAITID,
    PASSHSM_SYS_SIGSUSPEND, PASSHSM_SYS_SIGTIMEDWAIT;

#endif
