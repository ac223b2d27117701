import Glibc
import HSMCore
import HSMSystem

extension Errno {
    /// The errno that a user of a mount gets for a failed fill.
    package init(_ error: FillError) {
        let code =
            switch error.code {
            case .io: Glibc.EIO
            case .permission: Glibc.EPERM
            case .busy: Glibc.EBUSY
            case .textBusy: Glibc.ETXTBSY
            case .again: Glibc.EAGAIN
            case .noSpace: Glibc.ENOSPC
            case .quota: Glibc.EDQUOT
            case .interrupted: Glibc.EINTR
            }
        self.init(rawValue: code)
    }
}
