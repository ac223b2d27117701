import Glibc
import HSMCore
import HSMSystem

extension FillError {
    /// What a system call on the remote's side failed with, as an error of a fill: ENOENT and ENOTDIR are `.remoteGone`,
    /// everything else `.remoteFailed`.
    init(remote error: Errno, _ action: String, _ path: [UInt8]) {
        let cause = "\(action) \(String(decoding: path, as: UTF8.self)): \(error.text)"
        switch error.rawValue {
        case ENOENT, ENOTDIR: self.init(.io, .remoteGone, cause)
        case EACCES, EPERM: self.init(.permission, .remoteFailed, cause)
        default: self.init(.io, .remoteFailed, cause)
        }
    }

    static let cancelledRead = FillError(.interrupted, .cancelled, "the read was cancelled")
}
