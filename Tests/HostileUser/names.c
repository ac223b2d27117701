/* What is done to names, directories and attributes. */
#include "hostile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MOST_FILES 128
#define OWN_FILES 24

static int files[MOST_FILES];
static int file_count;

int some_file(void) { return file_count ? files[below((uint64_t)file_count)] : -1; }

const char *own_name(void)
{
    static char names[2][300];
    static int turn;
    char *name = names[turn ^= 1];
    if (happens(80)) snprintf(name, 300, "own/f%d", (int)below(OWN_FILES));
    else if (happens(60)) snprintf(name, 300, "own/d%d/f%d", (int)below(4), (int)below(6));
    else if (happens(50)) snprintf(name, 300, "own/d%d", (int)below(4));
    else {
        /* Up to one byte more than a name may have. */
        size_t length = below(257);
        memcpy(name, "own/", 4);
        memset(name + 4, 'n', length);
        name[4 + length] = 0;
    }
    return name;
}

const char *some_name(void)
{
    static char names[2][64];
    static int turn;
    char *name = names[turn ^= 1];
    switch (below(8)) {
    case 0: case 1: return own_name();
    case 2: case 3: case 4: snprintf(name, 64, "large/%d", (int)below(12)); return name;
    case 5: case 6: snprintf(name, 64, "small/%d", (int)below(100)); return name;
    default: {
        static const char *const odd[] = { ".", "own", "..", ".passhsm", ".passhsm/config", "own/.passhsm", "large", "none",
            "own/.fuse_hidden0", "secret", "own/f1/x", "" };
        return odd[below(sizeof odd / sizeof *odd)];
    }
    }
}

void close_all(void)
{
    while (file_count) close(files[--file_count]);
}

static void keep(int file)
{
    if (file < 0) return;
    if (file_count < MOST_FILES) {
        files[file_count++] = file;
        return;
    }
    int place = (int)below(MOST_FILES);
    close(files[place]);
    files[place] = file;
}

void open_some(void)
{
    static const int flags[] = { O_RDONLY, O_RDWR, O_WRONLY, O_RDWR | O_CREAT, O_RDWR | O_TRUNC, O_RDONLY | O_TRUNC,
        O_RDWR | O_APPEND, O_RDWR | O_DIRECT, O_RDONLY | O_DIRECT, O_PATH, O_RDONLY | O_NONBLOCK, O_RDWR | O_SYNC,
        O_RDWR | O_CREAT | O_EXCL, O_RDONLY | O_DIRECTORY, O_RDONLY | O_NOATIME, O_RDONLY | O_NOFOLLOW };
    keep(open(some_name(), flags[below(sizeof flags / sizeof *flags)] | O_NONBLOCK, below(01000)));
}

static void drop_some(void)
{
    for (int count = (int)below(16); count > 0 && file_count; count--) {
        int place = (int)below((uint64_t)file_count);
        close(files[place]);
        files[place] = files[--file_count];
    }
}

static void reopen(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", some_file());
    keep(happens(70) ? open(path, (int)below(3) | O_NONBLOCK) : dup(some_file()));
    keep(open("own", O_TMPFILE | O_RDWR, 0600));
}

static void rename_some(void)
{
    /* A storm: the same few names, again and again. */
    for (int count = (int)below(40); count >= 0; count--) {
        unsigned flags = happens(70) ? 0 : (unsigned)below(8);
        syscall(SYS_renameat2, AT_FDCWD, own_name(), AT_FDCWD, happens(95) ? own_name() : some_name(), flags);
    }
}

static void make_some(void)
{
    switch (below(8)) {
    case 0: mkdir(own_name(), 0777); break;
    case 1: rmdir(own_name()); break;
    case 2: link(happens(80) ? own_name() : some_name(), own_name()); break;
    case 3: symlink(some_name(), own_name()); break;
    case 4: mknod(own_name(), S_IFIFO | 0666, 0); break;
    case 5: mknod(own_name(), happens(50) ? S_IFCHR | 0666 : S_IFSOCK | 0666, makedev(1, 3)); break;
    default: unlink(happens(90) ? own_name() : some_name());
    }
}

static void attribute(void)
{
    static const char *const names[] = { "user.a", "user.b", "user.passhsm", "trusted.passhsm", "passhsm.state",
        "security.capability", "system.posix_acl_access", "system.posix_acl_default", "user.", "nothing", "user.overlay.opaque" };
    const char *name = names[below(sizeof names / sizeof *names)], *path = some_name();
    static const size_t sizes[] = { 0, 1, 20, 100, 4096, 65536, 65537, 200000 };
    size_t size = sizes[below(sizeof sizes / sizeof *sizes)];
    switch (below(6)) {
    case 0: case 1: setxattr(path, name, buffer, size, (int)below(4)); break;
    case 2: getxattr(path, name, buffer, size); break;
    case 3: listxattr(path, buffer, size); break;
    case 4: removexattr(path, name); break;
    default: fsetxattr(some_file(), name, buffer, size, 0);
    }
}

static void metadata(void)
{
    const char *path = some_name();
    static const int64_t times[] = { 0, -1, 1, 1LL << 31, 1LL << 33, 1LL << 34, INT64_MAX, INT64_MIN, 1700000000 };
    struct timespec both[2] = { { times[below(9)], (long)below(1100000000) }, { times[below(9)], happens(20) ? UTIME_OMIT : (long)below(1000000000) } };
    struct stat status;
    struct statvfs system;
    switch (below(9)) {
    case 0: chmod(path, (mode_t)below(010000)); break;
    case 1: chown(path, (uid_t)(happens(50) ? getuid() : number()), (gid_t)(happens(50) ? getgid() : number())); break;
    case 2: utimensat(AT_FDCWD, path, both, happens(50) ? AT_SYMLINK_NOFOLLOW : 0); break;
    case 3: fchmod(some_file(), 0666); break;
    case 4: access(path, (int)below(8)); break;
    case 5: statvfs(path, &system); break;
    case 6: fstat(some_file(), &status); break;
    case 7: chmod("own/f1", 0666); break;
    default: lstat(path, &status);
    }
}

static void list(void)
{
    DIR *directory = opendir(happens(60) ? "own" : happens(50) ? "small" : some_name());
    if (!directory) return;
    for (int count = (int)below(60); count > 0; count--) {
        if (!readdir(directory)) rewinddir(directory);
        if (happens(4)) seekdir(directory, (long)some_offset());
        if (happens(4)) make_some();
    }
    if (happens(20)) {
        /* A handle that stays open, with a place in the middle. */
        keep(dup(dirfd(directory)));
    }
    closedir(directory);
}

const struct operation name_operations[] = { { "open", 30, open_some }, { "close", 6, drop_some }, { "reopen", 3, reopen },
    { "rename", 4, rename_some }, { "make", 10, make_some }, { "attribute", 8, attribute }, { "metadata", 8, metadata },
    { "list", 4, list }, { NULL, 0, NULL } };
