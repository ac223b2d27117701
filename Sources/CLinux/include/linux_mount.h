/* The mount calls of Linux 5.2 and 6.8 and statx(2)'s mount id of Linux 6.8, which glibc 2.36 does not declare. */
#ifndef PASSHSM_LINUX_MOUNT_H
#define PASSHSM_LINUX_MOUNT_H
#include <stdint.h>

/* open_tree(OPEN_TREE_CLONE): a private mount of the tree below `fd`, without the mounts on it. */
int passhsm_clone_tree(int fd);

/* The id of the mount that `fd` is on, never used again until the next boot (STATX_MNT_ID_UNIQUE); 0 where the
 * kernel lacks it. */
uint64_t passhsm_unique_mount_id(int fd);

/* statmount(2): 1 while the mount of this unique id is attached where this process sees it; 0 also where that cannot be
 * told. */
int passhsm_is_attached(uint64_t mount);

/* mount_setattr(2), Linux 5.12, on the mount of passhsm_clone_tree(): it becomes nosuid and nodev. */
int passhsm_withhold_rights(int tree);

/* umount2(2); detaching is lazy (MNT_DETACH), and the last component may not be a symlink (UMOUNT_NOFOLLOW). */
extern const int PASSHSM_MNT_DETACH, PASSHSM_UMOUNT_NOFOLLOW;
int passhsm_umount(const char *path, int flags);

#endif
