/* File handles (name_to_handle_at(2)): GNU names, and a structure with a flexible array. */
#ifndef PASSHSM_LINUX_HANDLE_H
#define PASSHSM_LINUX_HANDLE_H
#include <stdint.h>

#define PASSHSM_HANDLE_MAX 128 /* MAX_HANDLE_SZ */
#define PASSHSM_AT_HANDLE_FID 0x200 /* Linux 6.5: a handle that identifies, but cannot be opened */

struct passhsm_handle {
    uint32_t size;
    int32_t type;
    uint8_t bytes[PASSHSM_HANDLE_MAX];
};

int passhsm_name_to_handle(int directory, const char *name, struct passhsm_handle *handle, int flags);
int passhsm_open_by_handle(int mount, const struct passhsm_handle *handle, int flags);

/* XFS_IOC_BULKSTAT of one inode of the file system that `fd` is open on: 0 with the generation that the number has now,
 * which nothing but CAP_SYS_ADMIN may ask; ESTALE when no inode has the number. */
int passhsm_xfs_generation(int fd, uint64_t inode, uint32_t *generation);

#endif
