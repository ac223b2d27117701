import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// The top directory of a source. Each use opens it anew, and no descriptor of it is kept. The source can therefore be
/// unmounted, and is found again when it returns. Safe on every thread; blocks like open(2).
///
/// Opening takes three system calls, some microseconds in all. The file system's identity is looked up only when the
/// mount is not the one of the last time.
struct SourceTop: ~Copyable, Sendable {
    private let path: [UInt8]
    /// Nil when none was recorded.
    private let identity: SourceIdentity?
    /// The unique id of the last mount that had the recorded identity; zero for none.
    private let rightMount = Atomic<UInt64>(0)

    init(path: [UInt8], identity: SourceIdentity?) {
        self.path = path
        self.identity = identity
    }

    /// Opens the top directory with O_PATH.
    ///
    /// - Throws: an outage (``FillError/isOutage``) when the directory is missing, or is on another file system than
    ///   the recorded one.
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

    /// The file system that `top` is on, if it is not the recorded one.
    private func whatElse(_ top: Descriptor) throws(Errno) -> SourceIdentity? {
        let mount = top.uniqueMountID
        // A mount whose server has died has no id, and fstatat(2) fails with the cause.
        if mount == 0 { _ = try top.stat() }
        guard let identity, mount == 0 || mount != rightMount.load(ordering: .relaxed) else { return nil }
        let found = try SourceIdentity(of: top)
        guard found.isSame(as: identity) else { return found }
        rightMount.store(mount, ordering: .relaxed)
        return nil
    }

    /// Decides what an `error` of one object means for the whole source: an outage, or nil when the error is the
    /// object's own.
    func outage(_ error: Errno) -> FillError? {
        do throws(FillError) {
            switch error.rawValue {
            case EIO, ENOTCONN, ESTALE, ENODEV, ESHUTDOWN, ETIMEDOUT, EHOSTDOWN: _ = try open()
            // Older imports recorded no file system. An empty directory may then be the mount point of a source that is
            // not mounted.
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
        // Faults of this machine, and refusals by the source, are no outage.
        case EMFILE, ENFILE, ENOMEM, EACCES, EPERM: FillError(remote: error, "opening", path)
        default: away(path, error.text)
        }
    }

    private static func away(_ path: [UInt8], _ cause: String) -> FillError {
        FillError(.io, .remoteFailed, "the source \(BytePath(path)) is away: \(cause)", isOutage: true)
    }
}
