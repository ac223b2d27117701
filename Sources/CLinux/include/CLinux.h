/* Kernel interfaces that the distribution's headers lack, and GNU names that Swift's Glibc module hides.
 * One small file each; every function is the bare system call: it returns -1 and sets errno. */
#ifndef PASSHSM_CLINUX_H
#define PASSHSM_CLINUX_H
#include "linux_calls.h"
#include "linux_constants.h"
#include "linux_crash.h"
#include "linux_fanotify.h"
#include "linux_handle.h"
#include "linux_mount.h"
#include "linux_probe.h"
#include "linux_socket.h"
#include "linux_spawn.h"
#endif
