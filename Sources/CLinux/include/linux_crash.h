/* Ending at once after a crash; a handler of signals cannot be written in Swift, whose runtime may allocate and lock. */
#ifndef PASSHSM_LINUX_CRASH_H
#define PASSHSM_LINUX_CRASH_H

/* A signal that tells of a fault ends the process at once, after a line on stderr: the Swift runtime's own handlers would
 * stop every thread for the seconds that a backtrace takes. */
void passhsm_fail_fast(void);

#endif
