#define _GNU_SOURCE
#include "linux_handle.h"

#include <fcntl.h>
#include <stddef.h>

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
