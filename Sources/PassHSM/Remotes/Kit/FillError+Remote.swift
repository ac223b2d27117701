import Glibc
import HSMCore
import HSMSystem

extension FillError {
    /// The error of a fill whose system call on the source failed. ENOENT and ENOTDIR become `.remoteGone`, and
    /// everything else `.remoteFailed`; EACCES and EPERM have the code `.permission`.
    init(remote error: Errno, _ action: String, _ path: [UInt8]) {
        let cause = "\(action) \(String(decoding: path, as: UTF8.self)): \(error.text)"
        switch error.rawValue {
        case ENOENT, ENOTDIR: self.init(.io, .remoteGone, cause)
        case EACCES, EPERM: self.init(.permission, .remoteFailed, cause)
        default: self.init(.io, .remoteFailed, cause)
        }
    }

    static func remoteFailed(_ cause: String) -> FillError { FillError(.io, .remoteFailed, cause) }
    static func remoteChanged(_ cause: String) -> FillError { FillError(.io, .remoteChanged, cause) }
    static let cancelledRead = FillError(.interrupted, .cancelled, "the read was cancelled")
}
