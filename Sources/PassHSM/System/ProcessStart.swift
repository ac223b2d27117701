import CLinux
import Glibc

/// What every run of the program begins with, before there are other threads.
package enum ProcessStart {
    package static func prepare() {
        occupyStandardDescriptors()
        // A write beyond RLIMIT_FSIZE is an error of the write.
        signal(SIGXFSZ, SIG_IGN)
        // Whoever wants backtraces says so.
        if getenv("SWIFT_BACKTRACE") == nil { passhsm_fail_fast() }
    }

    /// Descriptors 0 to 2 that are closed lead to /dev/null: a file that got such a number would be written to by whatever
    /// prints.
    private static func occupyStandardDescriptors() {
        for number in STDIN_FILENO...STDERR_FILENO where fcntl(number, F_GETFD) == -1 && errno == EBADF {
            // The lowest free number, which is this one.
            _ = Glibc.open("/dev/null", O_RDWR)
        }
    }
}
