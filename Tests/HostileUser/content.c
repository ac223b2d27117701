/* What is done to content: reads, writes, sizes, mappings. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int64_t some_offset(void)
{
    static const int64_t odd[] = { 0, -1, 1, 4095, 4096, 65535, 65536, 1 << 20, 1LL << 31, (1LL << 31) - 1, 1LL << 32, 1LL << 40,
        1LL << 43, (1LL << 44) - 4096, 1LL << 47, 1LL << 62, INT64_MAX, INT64_MAX - 4095, INT64_MIN };
    int64_t offset = happens(70) ? (int64_t)below(9 << 20) : odd[below(sizeof odd / sizeof *odd)];
    return happens(60) ? offset & ~4095LL : offset;
}

/* Whether what is written there takes space of nobody else. */
static int is_own(int file)
{
    struct stat status;
    return fstat(file, &status) == 0 && status.st_uid == getuid();
}

static void read_some(void)
{
    int file = some_file();
    struct iovec parts[2] = { { buffer, below(4097) }, { buffer + 8192, below(BUFFER - 8192) } };
    switch (below(5)) {
    case 0: preadv2(file, parts, 2, some_offset(), happens(20) ? RWF_NOWAIT : 0); break;
    case 1: readv(file, parts, 2); break;
    case 2: pread(file, buffer, 1 + below(4096), some_offset()); break;
    default: pread(file, buffer, BUFFER, some_offset());
    }
}

static void write_some(void)
{
    int file = some_file();
    size_t size = 1 + below(happens(80) ? 8192 : 65536);
    if (!is_own(file)) size = 1;
    switch (below(4)) {
    case 0: write(file, buffer, size); break;
    case 1: pwrite(file, buffer, size, some_offset()); break;
    case 2: pwrite(file, NULL, size, some_offset()); break;
    default: pwrite(file, buffer, size, (int64_t)below(1 << 22));
    }
}

static void direct(void)
{
    int file = open(happens(50) ? own_name() : some_name(), (happens(50) ? O_RDWR : O_RDONLY) | O_DIRECT | O_NONBLOCK);
    if (file < 0) return;
    size_t size = happens(70) ? (1 + below(16)) * 4096 : 1 + below(65536);
    char *start = buffer + (happens(80) ? 0 : 1);
    for (int count = (int)below(6); count >= 0; count--) {
        int64_t offset = some_offset();
        if (happens(60)) pread(file, start, size, offset);
        else if (is_own(file)) pwrite(file, start, size, offset);
    }
    close(file);
}

static void truncate_some(void)
{
    int64_t size = some_offset();
    if (happens(50)) ftruncate(some_file(), size);
    else truncate(happens(80) ? own_name() : some_name(), size);
    /* Otherwise nothing would be small any more. */
    if (happens(50)) truncate(own_name(), (off_t)below(1 << 20));
}

static void punch(void)
{
    static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE,
        FALLOC_FL_INSERT_RANGE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE, 0, 0x40, -1 };
    int mode = modes[below(sizeof modes / sizeof *modes)];
    int frees = mode == modes[0] || mode == modes[1] || mode == modes[2];
    /* What allocates is small: the disk is shared. */
    int64_t length = frees ? some_offset() : (int64_t)below(1 << 20);
    fallocate(some_file(), mode, some_offset(), length);
}

static void ahead(void)
{
    int file = some_file();
    switch (below(3)) {
    case 0: readahead(file, some_offset(), (size_t)some_offset()); break;
    case 1: posix_fadvise(file, some_offset(), some_offset(), (int)below(7)); break;
    default:
        /* Of everything at once. */
        for (int count = 0; count < 12; count++) {
            int other = open(some_name(), O_RDONLY | O_NONBLOCK);
            readahead(other, 0, 64 << 20);
            close(other);
        }
    }
}

struct mapping {
    char *start;
    size_t size;
    int writes;
};

static void touch(void *argument)
{
    struct mapping *mapping = argument;
    for (int count = 0; count < 40; count++) {
        volatile char *place = mapping->start + below(mapping->size);
        if (mapping->writes) *place = 'm';
        else (void)*place;
    }
}

static void map(void)
{
    int file = some_file();
    struct mapping mapping = { .size = (1 + below(512)) * 4096, .writes = happens(40) && is_own(file) };
    int protection = PROT_READ | (mapping.writes ? PROT_WRITE : 0);
    mapping.start = mmap(NULL, mapping.size, protection, happens(70) ? MAP_SHARED : MAP_PRIVATE, file, some_offset() & ~4095LL);
    if (mapping.start == MAP_FAILED) return;
    if (happens(30)) madvise(mapping.start, mapping.size, (int)below(26));
    if (happens(10)) ftruncate(file, (off_t)below(1 << 16));
    faulting(touch, &mapping);
    if (happens(30)) msync(mapping.start, mapping.size, happens(50) ? MS_SYNC : MS_ASYNC | MS_INVALIDATE);
    munmap(mapping.start, mapping.size);
}

static void copy(void)
{
    int from = some_file(), to = some_file();
    int64_t in = some_offset(), out = (int64_t)below(1 << 22);
    size_t size = is_own(to) ? below(1 << 18) : 1;
    int ends[2];
    switch (below(4)) {
    case 0: syscall(SYS_copy_file_range, from, &in, to, &out, size, 0); break;
    case 1: sendfile(to, from, &in, size); break;
    case 2:
        if (pipe2(ends, O_NONBLOCK)) break;
        splice(from, &in, ends[1], NULL, 65536, SPLICE_F_NONBLOCK);
        splice(ends[0], NULL, to, &out, 65536, SPLICE_F_NONBLOCK);
        close(ends[0]);
        close(ends[1]);
        break;
    default: lseek(from, some_offset(), (int)below(6));
    }
}

static void sync_some(void)
{
    int file = some_file();
    switch (below(3)) {
    case 0: fsync(file); break;
    case 1: fdatasync(file); break;
    default: sync_file_range(file, some_offset(), some_offset(), (unsigned)below(8));
    }
}

const struct operation content_operations[] = { { "read", 25, read_some }, { "write", 15, write_some }, { "direct", 6, direct },
    { "truncate", 6, truncate_some }, { "punch", 6, punch }, { "ahead", 5, ahead }, { "map", 8, map }, { "copy", 5, copy },
    { "sync", 1, sync_some }, { NULL, 0, NULL } };
