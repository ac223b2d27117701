#define _GNU_SOURCE
#include "linux_mount.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_statmount
#define SYS_statmount 457 /* Linux 6.8 */
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442 /* Linux 5.12 */
#endif
#define ATTRIBUTES_NOSUID_NODEV 0x6u /* MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV */
#define MNT_ID_UNIQUE 0x4000u /* STATX_MNT_ID_UNIQUE, Linux 6.8 */

int passhsm_clone_tree(int fd)
{
    return (int)syscall(SYS_open_tree, fd, "", OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH);
}

uint64_t passhsm_unique_mount_id(int fd)
{
    struct statx result;
    memset(&result, 0, sizeof result);
    if (statx(fd, "", AT_EMPTY_PATH, MNT_ID_UNIQUE, &result) || !(result.stx_mask & MNT_ID_UNIQUE)) return 0;
    return result.stx_mnt_id;
}

int passhsm_withhold_rights(int tree)
{
    struct {
        uint64_t set, clear, propagation, userns; /* struct mount_attr */
    } request = { .set = ATTRIBUTES_NOSUID_NODEV };
    return (int)syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &request, sizeof request);
}

int passhsm_is_attached(uint64_t mount)
{
    struct {
        uint32_t size, spare;
        uint64_t mount, wanted;
    } request = { .size = sizeof request, .mount = mount };
    char result[512]; /* sizeof(struct statmount) */
    return syscall(SYS_statmount, &request, result, sizeof result, 0) == 0;
}

const int PASSHSM_MNT_DETACH = MNT_DETACH, PASSHSM_UMOUNT_NOFOLLOW = UMOUNT_NOFOLLOW;

int passhsm_umount(const char *path, int flags) { return umount2(path, flags); }
