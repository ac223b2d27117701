#define _GNU_SOURCE
#include "linux_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

int passhsm_spawn(const struct passhsm_spawn *request)
{
    /* Copies above 3 first, so that no dup2 in the child overwrites one that is still needed. */
    int copies[4], error = 0;
    for (int i = 0; i < 4; i++) {
        copies[i] = request->descriptors[i] < 0 ? -1 : fcntl(request->descriptors[i], F_DUPFD_CLOEXEC, 4);
        if (request->descriptors[i] >= 0 && copies[i] < 0) error = errno;
    }

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    for (int i = 0; i < 4 && !error; i++) {
        if (copies[i] >= 0) error = posix_spawn_file_actions_adddup2(&actions, copies[i], i);
        else error = posix_spawn_file_actions_addclose(&actions, i);
    }
    if (!error) error = posix_spawn_file_actions_addclosefrom_np(&actions, 4);
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
        | (request->new_session ? POSIX_SPAWN_SETSID : 0));

    pid_t pid = -1;
    if (!error)
        error = posix_spawn(&pid, request->path, &actions, &attributes, request->arguments, request->environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    for (int i = 0; i < 4; i++)
        if (copies[i] >= 0) close(copies[i]);
    if (error) {
        errno = error;
        return -1;
    }
    return pid;
}

int passhsm_wait(int pid, int *status)
{
    int raw;
    if (waitpid(pid, &raw, 0) < 0) return -1;
    *status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return 0;
}

char **passhsm_environment(void) { return environ; }
