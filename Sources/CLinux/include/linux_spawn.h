/* posix_spawn(3) in the one form that is used: Swift has no fork, and two of the file actions are GNU names. */
#ifndef PASSHSM_LINUX_SPAWN_H
#define PASSHSM_LINUX_SPAWN_H

struct passhsm_spawn {
    const char *path;
    char *const *arguments;
    char *const *environment;
    /* Descriptors of this process that become 0, 1, 2 and 3 of the child (-1: closed); no other is inherited. */
    int descriptors[4];
    /* POSIX_SPAWN_SETSID */
    int new_session;
};

/* The child's process id; signal mask empty, SIGPIPE at its default. */
int passhsm_spawn(const struct passhsm_spawn *request);

/* The child's wait status (waitpid(2)), of which WIFEXITED and so on are macros: the exit status, or 128 + the signal. */
int passhsm_wait(int pid, int *status);

/* `environ`, which Swift takes for shared mutable state. */
char **passhsm_environment(void);

#endif
