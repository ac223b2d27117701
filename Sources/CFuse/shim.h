/* What Swift cannot call or name of libfuse 3's low-level API and of <linux/fuse.h>.
 * Every entry says why it is here. No policy. */
#ifndef PASSHSM_CFUSE_SHIM_H
#define PASSHSM_CFUSE_SHIM_H

#define FUSE_USE_VERSION 314
#include <stddef.h> /* before fuse_lowlevel.h, which uses offsetof without it */
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

/* Constants and layouts of Linux 6.9 and later that the distribution's <linux/fuse.h> lacks.
 * Source: include/uapi/linux/fuse.h of Linux 6.18. */
#define PASSHSM_FUSE_HANDLE_KILLPRIV_V2 (1u << 28)
#define PASSHSM_FUSE_INIT_EXT (1u << 30)
#define PASSHSM_FUSE_PASSTHROUGH_HIGH (1u << 5) /* bit 37, in flags2 */
#define PASSHSM_FUSE_ALLOW_IDMAP_HIGH (1u << 8) /* bit 40, of Linux 6.12 */
#define PASSHSM_FOPEN_PASSTHROUGH (1u << 7)
#define PASSHSM_FOPEN_NOFLUSH (1u << 5)
#define PASSHSM_WRITE_CACHE (1u << 0)
#define PASSHSM_WRITE_KILL_SUIDGID (1u << 2)
#define PASSHSM_OPEN_KILL_SUIDGID (1u << 0)
#define PASSHSM_FATTR_KILL_SUIDGID (1u << 11)
#define PASSHSM_FUSE_SETXATTR_EXT (1u << 29)
#define PASSHSM_FUSE_TMPFILE 51
#define PASSHSM_FUSE_STATX 52
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

/* What libfuse's own fill_entry does, which it keeps to itself; for CREATE, whose answer has a backing id. */
static inline void passhsm_fill_entry(struct fuse_entry_out *out, struct fuse_entry_param entry)
{
    out->nodeid = entry.ino;
    out->generation = entry.generation;
    out->entry_valid = (uint64_t)entry.entry_timeout;
    out->entry_valid_nsec = (uint32_t)((entry.entry_timeout - (double)out->entry_valid) * 1e9);
    out->attr_valid = (uint64_t)entry.attr_timeout;
    out->attr_valid_nsec = (uint32_t)((entry.attr_timeout - (double)out->attr_valid) * 1e9);
    out->attr.ino = entry.attr.st_ino;
    out->attr.mode = entry.attr.st_mode;
    out->attr.nlink = (uint32_t)entry.attr.st_nlink;
    out->attr.uid = entry.attr.st_uid;
    out->attr.gid = entry.attr.st_gid;
    out->attr.rdev = (uint32_t)entry.attr.st_rdev;
    out->attr.size = (uint64_t)entry.attr.st_size;
    out->attr.blksize = (uint32_t)entry.attr.st_blksize;
    out->attr.blocks = (uint64_t)entry.attr.st_blocks;
    out->attr.atime = (uint64_t)entry.attr.st_atim.tv_sec;
    out->attr.mtime = (uint64_t)entry.attr.st_mtim.tv_sec;
    out->attr.ctime = (uint64_t)entry.attr.st_ctim.tv_sec;
    out->attr.atimensec = (uint32_t)entry.attr.st_atim.tv_nsec;
    out->attr.mtimensec = (uint32_t)entry.attr.st_mtim.tv_nsec;
    out->attr.ctimensec = (uint32_t)entry.attr.st_ctim.tv_nsec;
}

/* From the entry's attributes, all but the time of birth. */
static inline void passhsm_fill_statx(struct passhsm_statx_out *out, struct fuse_entry_param entry)
{
    const struct stat *st = &entry.attr;
    out->attr_valid = (uint64_t)entry.attr_timeout;
    out->attr_valid_nsec = (uint32_t)((entry.attr_timeout - (double)out->attr_valid) * 1e9);
    out->mask = 0x7ff; /* STATX_BASIC_STATS */
    out->blksize = (uint32_t)st->st_blksize;
    out->nlink = (uint32_t)st->st_nlink;
    out->uid = st->st_uid;
    out->gid = st->st_gid;
    out->mode = (uint16_t)st->st_mode;
    out->ino = st->st_ino;
    out->size = (uint64_t)st->st_size;
    out->blocks = (uint64_t)st->st_blocks;
    out->atime = (struct passhsm_sx_time){ st->st_atim.tv_sec, (uint32_t)st->st_atim.tv_nsec, 0 };
    out->ctime = (struct passhsm_sx_time){ st->st_ctim.tv_sec, (uint32_t)st->st_ctim.tv_nsec, 0 };
    out->mtime = (struct passhsm_sx_time){ st->st_mtim.tv_sec, (uint32_t)st->st_mtim.tv_nsec, 0 };
    out->rdev_major = major(st->st_rdev);
    out->rdev_minor = minor(st->st_rdev);
}

/* fuse_session_new is a macro in libfuse 3.17 and later. */
static inline struct fuse_session *passhsm_session_new(
    struct fuse_args *args, const struct fuse_lowlevel_ops *ops, void *user)
{
    return fuse_session_new(args, ops, sizeof *ops, user);
}

/* The INIT reply is the only place where passthrough, KILLPRIV_V2, SETXATTR_EXT and mapped owners can be agreed on stock
 * libfuse 3.14, whose own API for them starts with 3.17. `out` is the payload of the INIT reply.
 * The word behind flags2 is max_stack_depth since Linux 6.9. */
static inline void passhsm_init_reply(void *out, uint32_t stack_depth, int maps_owners)
{
    struct fuse_init_out *init = (struct fuse_init_out *)out;
    init->flags |= PASSHSM_FUSE_HANDLE_KILLPRIV_V2 | PASSHSM_FUSE_SETXATTR_EXT;
    if (maps_owners) {
        init->flags |= PASSHSM_FUSE_INIT_EXT;
        init->flags2 |= PASSHSM_FUSE_ALLOW_IDMAP_HIGH;
    }
    if (stack_depth) {
        init->flags |= PASSHSM_FUSE_INIT_EXT;
        init->flags2 |= PASSHSM_FUSE_PASSTHROUGH_HIGH;
        *(uint32_t *)((char *)out + offsetof(struct fuse_init_out, flags2) + 4) = stack_depth;
    }
}

/* Bit fields of fuse_file_info are imported, but not settable by name on every Swift version. */
static inline int passhsm_is_writepage(const struct fuse_file_info *info) { return info->writepage; }
static inline void passhsm_set_keep_cache(struct fuse_file_info *info, int on) { info->keep_cache = on; }
static inline void passhsm_set_cache_readdir(struct fuse_file_info *info, int on) { info->cache_readdir = on; }
static inline void passhsm_set_noflush(struct fuse_file_info *info, int on) { info->noflush = on; }
static inline void passhsm_set_direct_io(struct fuse_file_info *info, int on) { info->direct_io = on; }
static inline int passhsm_has_flock_release(const struct fuse_file_info *info) { return info->flock_release; }

#endif
