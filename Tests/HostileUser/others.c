/* Locks, ioctls, handles, signals. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void lock(void)
{
    int file = some_file();
    struct flock part = { .l_type = (short)below(3), .l_whence = SEEK_SET, .l_start = some_offset(), .l_len = some_offset() };
    static const int waiting[] = { F_SETLKW, F_OFD_SETLKW }, trying[] = { F_SETLK, F_GETLK, F_OFD_SETLK, F_OFD_GETLK };
    switch (below(6)) {
    case 0: flock(file, LOCK_EX | LOCK_NB); break;
    case 1: flock(file, happens(50) ? LOCK_UN : LOCK_SH | LOCK_NB); break;
    case 2:
        /* Ended by the timer's signal, if by nothing else. */
        flock(file, happens(50) ? LOCK_EX : LOCK_SH);
        break;
    case 3: fcntl(file, waiting[below(2)], &part); break;
    case 4: fcntl(file, F_SETLEASE, (int)below(3)); break;
    default: fcntl(file, trying[below(4)], &part);
    }
}

static void many_locks(void)
{
    int file = open("own/f0", O_RDWR | O_CREAT, 0666);
    for (int count = 0; count < 200; count++) {
        struct flock part = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = count * 2, .l_len = 1 };
        fcntl(file, F_SETLK, &part);
    }
    close(file);
}

static void control(void)
{
    static const unsigned long known[] = { FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FICLONE,
        FICLONERANGE, FIDEDUPERANGE, FS_IOC_FIEMAP, FITRIM, FIGETBSZ, FIONREAD, FIOQSIZE, FS_IOC_GETVERSION, FS_IOC_SETVERSION,
        FIFREEZE, FITHAW, FIBMAP, 0x8004587d /* FS_IOC_SHUTDOWN */, 0x8004e500 /* FUSE_DEV_IOC_CLONE */ };
    unsigned long command = happens(80) ? known[below(sizeof known / sizeof *known)] : (unsigned long)(uint32_t)number();
    uint64_t argument[512];
    for (size_t index = 0; index < 512; index++) argument[index] = happens(50) ? 0 : number();
    switch (below(4)) {
    case 0: ioctl(some_file(), command, NULL); break;
    case 1: ioctl(some_file(), command, some_file()); break;
    default: ioctl(some_file(), command, argument);
    }
}

static void handle(void)
{
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } some = { .head = { .handle_bytes = 128 } };
    int mount = 0;
    name_to_handle_at(AT_FDCWD, some_name(), &some.head, &mount, 0);
    if (happens(60)) {
        some.head.handle_bytes = (unsigned)below(129);
        for (size_t index = 0; index < sizeof some.bytes; index++) some.bytes[index] = (unsigned char)number();
    }
    int file = open_by_handle_at(AT_FDCWD, &some.head, O_RDONLY);
    if (file >= 0) close(file);
}

/* A program that reads what is missing, and is killed at it. */
static void killed(void)
{
    pid_t child = fork();
    if (child < 0) return;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            int file = open(some_name(), O_RDONLY | O_NONBLOCK);
            while (read(file, buffer, BUFFER) > 0) { }
            close(file);
        }
    }
    usleep((useconds_t)below(60000));
    static const int signals[] = { SIGKILL, SIGTERM, SIGSTOP, SIGUSR1, SIGINT, SIGALRM };
    int chosen = signals[below(6)];
    kill(child, chosen);
    usleep((useconds_t)below(3000));
    kill(child, SIGKILL);
    waitpid(child, NULL, WNOHANG);
}

static void disturb(void)
{
    /* Of the same group: the other processes of this user. */
    for (int count = (int)below(20); count >= 0; count--) kill(0, happens(50) ? SIGUSR1 : SIGIO);
}

static void wait_for(void)
{
    struct pollfd polled = { .fd = some_file(), .events = (short)number() };
    poll(&polled, 1, (int)below(20));
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    inotify_add_watch(watch, some_name(), IN_ALL_EVENTS);
    close(watch);
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN };
    epoll_ctl(set, EPOLL_CTL_ADD, some_file(), &event);
    close(set);
}

const struct operation other_operations[] = { { "lock", 10, lock }, { "manylocks", 1, many_locks }, { "ioctl", 8, control },
    { "handle", 4, handle }, { "killed", 2, killed }, { "disturb", 2, disturb }, { "poll", 2, wait_for }, { NULL, 0, NULL } };
