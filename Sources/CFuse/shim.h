/* Parts of libfuse 3's low-level API and of <linux/fuse.h> that Swift cannot call or name.
 * Every entry says why it is here. No policy. */
#ifndef PASSHSM_CFUSE_SHIM_H
#define PASSHSM_CFUSE_SHIM_H

#define FUSE_USE_VERSION 314
#include <stddef.h> /* before fuse_lowlevel.h, which uses offsetof without it */
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

/* Constants and layouts of Linux 6.9 and later that the distribution's <linux/fuse.h> lacks.
 * Source: include/uapi/linux/fuse.h of Linux 6.18. */
#define PASSHSM_FUSE_PASSTHROUGH_HIGH (1u << 5) /* bit 37, in flags2 */
#define PASSHSM_FUSE_ALLOW_IDMAP_HIGH (1u << 8) /* bit 40, of Linux 6.12 */
#define PASSHSM_FOPEN_PASSTHROUGH (1u << 7)
#define PASSHSM_FOPEN_NOFLUSH (1u << 5)
#define PASSHSM_WRITE_KILL_SUIDGID (1u << 2)
#define PASSHSM_OPEN_KILL_SUIDGID (1u << 0)
#define PASSHSM_FATTR_KILL_SUIDGID (1u << 11)
#define PASSHSM_FUSE_TMPFILE 51
#define PASSHSM_FUSE_STATX 52
#define PASSHSM_STATX_BASIC_STATS 0x7ffu
#define PASSHSM_STATX_BTIME 0x800u

/* Linux 6.6's answer to STATX; fuse_statx is laid out as statx(2)'s structure. */
struct passhsm_sx_time {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t reserved;
};

struct passhsm_statx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec, flags;
    uint64_t spare[2];
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, spare0;
    uint64_t ino, size, blocks, attributes_mask;
    struct passhsm_sx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare2[14];
};

struct passhsm_backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};

/* _IOW is a macro with a cast that Swift's importer does not take. */
static inline int passhsm_backing_open(int fuse, int fd)
{
    struct passhsm_backing_map map = { .fd = fd };
    return ioctl(fuse, _IOW(229, 1, struct passhsm_backing_map), &map);
}

static inline int passhsm_backing_close(int fuse, uint32_t id)
{
    return ioctl(fuse, _IOW(229, 2, uint32_t), &id);
}

/* fuse_open_out with Linux 6.9's backing_id in the place of the padding. */
struct passhsm_open_out {
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};

struct passhsm_create_out {
    struct fuse_entry_out entry;
    struct passhsm_open_out open;
};

/* fuse_session_new is a macro in libfuse 3.17 and later. */
static inline struct fuse_session *passhsm_session_new(
    struct fuse_args *args, const struct fuse_lowlevel_ops *ops, void *user)
{
    return fuse_session_new(args, ops, sizeof *ops, user);
}

#endif
