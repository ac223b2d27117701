import Glibc

@_exported import struct SystemPackage.Errno

/// Runs a C call that returns -1 and sets `errno`, again for as long as it fails with EINTR.
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
    /// The system's text for the error, with its number: what a log line and an error message show.
    package var text: String { "\(String(cString: strerror(rawValue))) (errno \(rawValue))" }
}
