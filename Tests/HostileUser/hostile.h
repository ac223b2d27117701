/* A user without privilege who does what he can think of, on a mount that others use too. */
#ifndef HOSTILE_H
#define HOSTILE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Numbers that the seed alone decides (SplitMix64). */
uint64_t number(void);
/* 0 ... end - 1 */
uint64_t below(uint64_t end);
int happens(int percent);

/* A descriptor of this process that is open in the mount, sometimes of a file that is not the user's; -1 when none is. */
int some_file(void);
/* A name below the mount, sometimes one that does not exist or is not the user's; valid until the next call but one. */
const char *some_name(void);
/* One of the user's own. */
const char *own_name(void);
/* Offsets and lengths where arithmetic goes wrong, and usual ones. */
int64_t some_offset(void);
/* Opens a file, and keeps the descriptor in place of another one. */
void open_some(void);
/* Gives all descriptors back. */
void close_all(void);

struct operation {
    const char *name;
    /* How often it is chosen. */
    int weight;
    void (*run)(void);
};

/* Of files' content, of names, and what is left; each ends with a name of NULL. */
extern const struct operation content_operations[], name_operations[], other_operations[];

/* Space for reads and writes, of BUFFER bytes, aligned to pages. */
extern char *buffer;
#define BUFFER ((size_t)256 << 10)

/* Runs what touches mapped memory; a fault ends it. */
void faulting(void (*body)(void *), void *argument);
#endif
