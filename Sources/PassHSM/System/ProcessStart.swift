import CLinux
import Glibc

/// The set-up that every run of the program begins with, before there are other threads.
package enum ProcessStart {
    /// Performs the set-up. To be called once, at the start of `main`.
    package static func prepare() {
        occupyStandardDescriptors()
        // With SIGXFSZ ignored, a write beyond RLIMIT_FSIZE fails with EFBIG instead of ending the process.
        signal(SIGXFSZ, SIG_IGN)
        // Backtraces are off unless the environment asks for them.
        if getenv("SWIFT_BACKTRACE") == nil { passhsm_fail_fast() }
    }

    /// Opens /dev/null for each of the descriptors 0 to 2 that is closed. Otherwise a file could get such a number, and
    /// printed text would be written to it.
    private static func occupyStandardDescriptors() {
        for number in STDIN_FILENO...STDERR_FILENO where fcntl(number, F_GETFD) == -1 && errno == EBADF {
            // open(2) returns the lowest free number, which is this one.
            _ = Glibc.open("/dev/null", O_RDWR)
        }
    }
}
