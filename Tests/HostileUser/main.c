/* hostile-user DIRECTORY UID SECONDS SEED PROCESSES [WITHOUT,...]
 *
 * As the user UID, PROCESSES processes do random things to the tree DIRECTORY for SECONDS: in `own`, which the user may
 * write, and to the other files, which he may read. The seed decides what is tried; what it meets depends on the others.
 * Each process has at most 128 files open and a gibibyte of memory, and what is written stays within some files of a few
 * mebibytes. WITHOUT names operations that are left out. Prints how often each was done; ends with an error when a process
 * did not end by itself, or was killed by anything but this program. */
#include "hostile.h"

#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_OPERATIONS 64
#define MOST_PROCESSES 64

char *buffer;
static uint64_t state;

uint64_t number(void)
{
    uint64_t value = state += 0x9e3779b97f4a7c15;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
}

uint64_t below(uint64_t end) { return end ? number() % end : 0; }
int happens(int percent) { return (int)below(100) < percent; }

static sigjmp_buf fault;
static volatile sig_atomic_t may_fault;

static void on_fault(int signal)
{
    if (may_fault) siglongjmp(fault, 1);
    (void)signal;
    _exit(99);
}

void faulting(void (*body)(void *), void *argument)
{
    if (sigsetjmp(fault, 1) == 0) {
        may_fault = 1;
        body(argument);
    }
    may_fault = 0;
}

/* Only ends system calls that wait. */
static void on_signal(int signal) { (void)signal; }

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct operation operations[MOST_OPERATIONS];
static int operation_count, weights;

/* Whether `name` is one of `names`, which commas separate. */
static int is_among(const char *name, const char *names)
{
    size_t length = strlen(name);
    for (; names && *names; names = strchr(names, ',') ? strchr(names, ',') + 1 : NULL) {
        if (strncmp(names, name, length) == 0 && (names[length] == ',' || !names[length])) return 1;
    }
    return 0;
}

static void choose(const struct operation *all, const char *without)
{
    for (; all->name; all++) {
        if (is_among(all->name, without) || operation_count == MOST_OPERATIONS) continue;
        operations[operation_count++] = *all;
        weights += all->weight;
    }
}

static void work(double end, uint64_t *counts)
{
    struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    /* No call waits for long: it is interrupted, as by an impatient program. */
    struct itimerval timer = { .it_interval = { .tv_usec = 700000 }, .it_value = { .tv_usec = 700000 } };
    setitimer(ITIMER_REAL, &timer, NULL);
    buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) _exit(98);
    memset(buffer, 'h', BUFFER);
    while (now() < end) {
        int place = (int)below((uint64_t)weights), index = 0;
        while (place >= operations[index].weight) place -= operations[index++].weight;
        operations[index].run();
        __atomic_add_fetch(&counts[index], 1, __ATOMIC_RELAXED);
        while (waitpid(-1, NULL, WNOHANG) > 0) { }
    }
    close_all();
    _exit(0);
}

static void limit(int resource, rlim_t most)
{
    struct rlimit limit = { most, most };
    setrlimit(resource, &limit);
}

static void become(uid_t user)
{
    if (setgroups(0, NULL) || setresgid(user, user, user) || setresuid(user, user, user)) {
        perror("hostile-user: another user");
        exit(2);
    }
}

int main(int count, char **arguments)
{
    if (count < 6) {
        fputs("usage: hostile-user DIRECTORY UID SECONDS SEED PROCESSES [WITHOUT,...]\n", stderr);
        return 2;
    }
    uid_t user = (uid_t)strtoul(arguments[2], NULL, 10);
    double end = now() + atof(arguments[3]);
    uint64_t seed = strtoull(arguments[4], NULL, 10);
    int processes = atoi(arguments[5]);
    const char *without = count > 6 ? arguments[6] : NULL;
    if (processes < 1 || processes > MOST_PROCESSES || user == 0 || chdir(arguments[1])) {
        perror("hostile-user");
        return 2;
    }
    choose(content_operations, without);
    choose(name_operations, without);
    choose(other_operations, without);
    uint64_t *counts = mmap(NULL, sizeof(uint64_t) * MOST_OPERATIONS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED || weights == 0) return 2;
    /* The user's processes signal their whole group, of which this one is. */
    struct sigaction action = { .sa_handler = on_signal };
    for (int signal = 1; signal < 32; signal++) sigaction(signal, &action, NULL);
    signal(SIGCHLD, SIG_DFL);
    setsid();
    become(user);
    umask(0);
    limit(RLIMIT_NOFILE, 160);
    limit(RLIMIT_AS, (rlim_t)1 << 30);
    limit(RLIMIT_CORE, 0);
    pid_t children[MOST_PROCESSES];
    for (int index = 0; index < processes; index++) {
        children[index] = fork();
        if (children[index] == 0) {
            state = seed * 1000 + (uint64_t)index;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            work(end, counts);
        }
    }
    /* Those that still wait in the mount when the time is over are killed, as are their children. */
    int failed = 0, left = processes;
    while (left > 0) {
        int status = 0;
        pid_t child = waitpid(-1, &status, WNOHANG);
        if (child > 0) {
            left--;
            if (WIFEXITED(status) && WEXITSTATUS(status)) failed = 1;
            if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) failed = 1;
            continue;
        }
        for (int index = 0; now() > end + 3 && index < processes; index++) kill(children[index], SIGKILL);
        if (now() > end + 60) {
            fputs("hostile-user: a killed process does not end\n", stderr);
            failed = 1;
            break;
        }
        usleep(20000);
    }
    for (int index = 0; index < operation_count; index++) {
        printf("%s %llu\n", operations[index].name, (unsigned long long)counts[index]);
    }
    return failed;
}
