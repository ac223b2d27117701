import Glibc

@_exported import struct SystemPackage.Errno

/// Runs a C call that returns -1 and sets `errno` on failure. Repeats it while it fails with EINTR, and throws every
/// other errno.
@inline(__always)
package func check<Result: SignedInteger>(_ call: () -> Result) throws(Errno) -> Result {
    while true {
        let result = call()
        if result != -1 { return result }
        let error = errno
        if error != EINTR { throw Errno(rawValue: error) }
    }
}

extension Errno {
    /// The system's text for the error, with its number, for log lines and error messages.
    package var text: String { "\(String(cString: strerror(rawValue))) (errno \(rawValue))" }
}
