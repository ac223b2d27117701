// Tells the thread sanitizer of the waits of Swift's Mutex.
//
// A Mutex that is free is locked by an atomic operation in the caller's own code, which the sanitizer sees. One that is held is
// waited for in libswiftSynchronization.so, which is not built for the sanitizer: it would call every access that
// follows such a wait a race. These functions take the place of the library's, call them, and say what they did.
//
// Only linked for `make test-thread`.

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>
#include <stdint.h>
#include <stdlib.h>

#define SWIFT_CALL __attribute__((swiftcall))
#define SWIFT_SELF __attribute__((swift_context))

// Synchronization._MutexHandle._lockSlow(UInt32), and _unlockSlow()
#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

typedef SWIFT_CALL void (*lock_function)(uint32_t thread, SWIFT_SELF void *mutex);
typedef SWIFT_CALL void (*unlock_function)(SWIFT_SELF void *mutex);

SWIFT_CALL void passhsm_lock_slow(uint32_t thread, SWIFT_SELF void *mutex) __asm__(LOCK_SLOW);
SWIFT_CALL void passhsm_unlock_slow(SWIFT_SELF void *mutex) __asm__(UNLOCK_SLOW);

static void *library_function(const char *name) {
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL) abort();
    return function;
}

SWIFT_CALL void passhsm_lock_slow(uint32_t thread, SWIFT_SELF void *mutex) {
    ((lock_function)library_function(LOCK_SLOW))(thread, mutex);
    __tsan_acquire(mutex);
}

SWIFT_CALL void passhsm_unlock_slow(SWIFT_SELF void *mutex) {
    __tsan_release(mutex);
    ((unlock_function)library_function(UNLOCK_SLOW))(mutex);
}
