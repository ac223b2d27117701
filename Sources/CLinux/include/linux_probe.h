/* What `passhsm doctor` tries: calls behind macros, and numbers newer than the distribution's headers. */
#ifndef PASSHSM_LINUX_PROBE_H
#define PASSHSM_LINUX_PROBE_H
#include <stdint.h>

/* fanotify_init(FAN_CLASS_PRE_CONTENT) (Linux 6.14): a group, of the highest class. */
int passhsm_fanotify_pre_content(void);
/* fanotify_mark(FAN_MARK_ADD, FAN_PRE_ACCESS) on the inode of `directory`. */
int passhsm_fanotify_mark_pre_access(int group, int directory);
/* ioctl(FICLONE): `to` shares all of the content of `from`. */
int passhsm_clone_file(int to, int from);

struct passhsm_fs {
    uint64_t type; /* the magic number, statfs(2) */
    uint64_t block_size, blocks, available;
    uint64_t id; /* f_fsid; 0: none */
};
int passhsm_statfs(int fd, struct passhsm_fs *result);

#endif
