import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// The top directory of a source. It is opened for each use, and no descriptor of it stays: so the source can be unmounted,
/// and is found again when it comes back. Safe on every thread; blocks as open(2) does.
///
/// That takes three system calls, some microseconds in all; which file system it is is looked up only when the mount is
/// another one than the last time.
struct SourceTop: ~Copyable, Sendable {
    private let path: [UInt8]
    /// Nil: not recorded.
    private let identity: SourceIdentity?
    /// The last one that was found right, by its unique id. Zero: none.
    private let rightMount = Atomic<UInt64>(0)

    init(path: [UInt8], identity: SourceIdentity?) {
        self.path = path
        self.identity = identity
    }

    /// O_PATH on the top directory.
    ///
    /// - Throws: an outage (``FillError/isOutage``) when it is not there, or is of another file system than the recorded one.
    func open() throws(FillError) -> Descriptor {
        let top: Descriptor
        let other: SourceIdentity?
        do throws(Errno) {
            top = try Descriptor.openTop(path)
            other = try whatElse(top)
        } catch { throw Self.failure(error, path) }
        if let other, let identity { throw Self.away(path, "there is \(other), not \(identity)") }
        return top
    }

    /// The file system that `top` is on when it is another one than the recorded.
    private func whatElse(_ top: Descriptor) throws(Errno) -> SourceIdentity? {
        let mount = top.uniqueMountID
        // Of a mount whose server has died there is no id, and this is the error.
        if mount == 0 { _ = try top.stat() }
        guard let identity, mount == 0 || mount != rightMount.load(ordering: .relaxed) else { return nil }
        let found = try SourceIdentity(of: top)
        guard found.isSame(as: identity) else { return found }
        rightMount.store(mount, ordering: .relaxed)
        return nil
    }

    /// What `error`, of an object in the source, means for the source as a whole: an outage, or nil when it is the object's
    /// own.
    func outage(_ error: Errno) -> FillError? {
        do throws(FillError) {
            switch error.rawValue {
            case EIO, ENOTCONN, ESTALE, ENODEV, ESHUTDOWN, ETIMEDOUT, EHOSTDOWN: _ = try open()
            // Older imports recorded nothing of the file system: this may be the directory where it was mounted.
            case ENOENT where identity == nil:
                let top = try open()
                if (try? DirectoryReader.isEmpty(top)) == true { return Self.away(path, "it is empty") }
            default: break
            }
            return nil
        } catch { return error }
    }

    private static func failure(_ error: Errno, _ path: [UInt8]) -> FillError {
        switch error.rawValue {
        // The machine's own faults, and the source's answer.
        case EMFILE, ENFILE, ENOMEM, EACCES, EPERM: FillError(remote: error, "opening", path)
        default: away(path, error.text)
        }
    }

    private static func away(_ path: [UInt8], _ cause: String) -> FillError {
        FillError(.io, .remoteFailed, "the source \(BytePath(path)) is away: \(cause)", isOutage: true)
    }
}
