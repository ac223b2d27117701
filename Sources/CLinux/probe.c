#define _GNU_SOURCE
#include "linux_probe.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#define PRE_CONTENT_CLASS 0x8 /* FAN_CLASS_PRE_CONTENT */
#define PRE_ACCESS 0x00100000 /* FAN_PRE_ACCESS, Linux 6.14 */

int passhsm_fanotify_pre_content(void) { return fanotify_init(PRE_CONTENT_CLASS | FAN_CLOEXEC, O_RDONLY | O_LARGEFILE); }

int passhsm_fanotify_mark_pre_access(int group, int directory)
{
    return fanotify_mark(group, FAN_MARK_ADD, PRE_ACCESS, directory, ".");
}

int passhsm_clone_file(int to, int from) { return ioctl(to, FICLONE, from); }

int passhsm_statfs(int fd, struct passhsm_fs *result)
{
    struct statfs raw;
    if (fstatfs(fd, &raw)) return -1;
    result->type = (uint64_t)raw.f_type & 0xffffffff;
    result->block_size = (uint64_t)raw.f_bsize;
    result->blocks = raw.f_blocks;
    result->available = raw.f_bavail;
    memcpy(&result->id, &raw.f_fsid, sizeof result->id);
    return 0;
}
