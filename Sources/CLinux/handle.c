#define _GNU_SOURCE
#include "linux_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/ioctl.h>

_Static_assert(PASSHSM_HANDLE_MAX == MAX_HANDLE_SZ, "the largest file handle");
_Static_assert(offsetof(struct passhsm_handle, bytes) == offsetof(struct file_handle, f_handle), "the kernel's layout");

int passhsm_name_to_handle(int directory, const char *name, struct passhsm_handle *handle, int flags)
{
    int mount;
    handle->size = PASSHSM_HANDLE_MAX;
    return name_to_handle_at(directory, name, (struct file_handle *)handle, &mount, flags);
}

int passhsm_open_by_handle(int mount, const struct passhsm_handle *handle, int flags)
{
    return open_by_handle_at(mount, (struct file_handle *)handle, flags);
}

/* struct xfs_bulk_ireq and struct xfs_bulkstat (xfs_fs.h, which is not part of the kernel's own headers). */
struct xfs_request {
    uint64_t inode;
    uint32_t flags, wanted, found, group;
    uint64_t reserved[5];
};

struct xfs_inode {
    uint64_t number, size, blocks, flags;
    int64_t times[4];
    uint32_t generation, others[31];
};

_Static_assert(sizeof(struct xfs_request) == 64, "as the kernel has it");
_Static_assert(sizeof(struct xfs_inode) == 192, "as the kernel has it");

int passhsm_xfs_generation(int fd, uint64_t inode, uint32_t *generation)
{
    struct {
        struct xfs_request head;
        struct xfs_inode inode;
    } request = {.head = {.inode = inode, .wanted = 1}};
    if (ioctl(fd, _IOR('X', 127, struct xfs_request), &request) != 0) return -1;
    /* The first inode from the number on. */
    if (request.head.found != 1 || request.inode.number != inode) {
        errno = ESTALE;
        return -1;
    }
    *generation = request.inode.generation;
    return 0;
}
