import Glibc
import HSMStore
import HSMSystem

/// A name in the lower tree that the source has too.
struct LocalEntry {
    let status: stat
    /// O_PATH.
    let place: Descriptor
    let record: Record?
    /// The record's fault, if there is a record that cannot be believed.
    let damage: RecordError?

    var kind: mode_t { status.st_mode & S_IFMT }
    var hasRecord: Bool { record != nil }
    /// The name came from a remote; true also when its record cannot be believed any more.
    var isImported: Bool { damage != nil || record.map { $0.state != .local } ?? false }
    /// An import made the name, and it holds nothing that the remote does not have.
    var isClean: Bool {
        guard let record else { return false }
        return record.state != .local && !record.flags.contains(.dirty) && !wasChangedUnseen
    }
    /// The file was changed behind a mount, or in a way that the mount's front end does not see.
    private var wasChangedUnseen: Bool { kind == S_IFREG && record?.wasChangedUnseen(status) == true }

    init(_ place: Descriptor, _ store: Store) throws(Errno) {
        self.place = place
        status = try place.stat()
        do throws(RecordError) {
            record = try store.record(of: place)
            damage = nil
        } catch {
            record = nil
            damage = error
        }
    }

    static let accessListName = "system.posix_acl_access"

    /// The ACL of a file; nil when it has none beyond its mode.
    func accessList() throws(Errno) -> [UInt8]? {
        do throws(Errno) {
            return try place.withProcPath { path throws(Errno) in
                try ExtendedAttributes.value(Self.accessListName, of: path, .follow)
            }
        } catch {
            guard error.rawValue == ENODATA || error.rawValue == EOPNOTSUPP else { throw error }
            return nil
        }
    }

    /// The reason to leave the name as it is, for the report of a conflict.
    var reason: String {
        if let damage { return damage.cause }
        guard let record, record.state != .local else { return "something local has this name" }
        if wasChangedUnseen { return "it may have been changed: its size or modification time is not the recorded one" }
        return record.flags.contains(.dirty) ? "it has local changes, and another version in the source" : "in the way"
    }
}
