import Glibc
import HSMSystem
import Logging

/// Lower directories that were copied, moved to another file system, or restored.
extension Store {
    /// Opens the store of `path`, exclusively, for an ``Adopter``: it removes nothing there, though the store's files
    /// seem to be gone.
    package static func openForAdoption(_ path: [CChar], log: Logger) throws(StoreError) -> Store {
        try open(
            path, create: false, purpose: "adopt", log: log, committer: Committer(), keepsLeftovers: true, adopts: true)
    }

    /// Whether the top directory's record belongs to another directory: the whole store was copied. An ``Adopter``
    /// changes that record last.
    func isMoved() -> Bool {
        guard let bytes = try? value(of: tree.root), let record = try? RecordValue(bytes),
            let handle = try? FileHandle(of: tree.root)
        else { return false }
        return !record.owner.isOf(handle)
    }

    /// - Parameter isMovable: a copied store is accepted too.
    /// - Throws: `StoreError` when nothing in the tree would be believed, or stubs would be taken for local files.
    func expectRecords(_ path: [CChar], isMovable: Bool) throws(StoreError) {
        let shown = String(decoding: path.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        if !isMovable && isMoved() {
            throw StoreError(
                "\(shown) was copied, moved or restored: its records are of other files. Run passhsm adopt \(shown)")
        }
        guard attribute == Self.attributes[0], try configuration().isImported else { return }
        var error: Errno?
        do throws(Errno) { _ = try value(of: tree.root) } catch let failure { error = failure }
        if error?.rawValue == ENODATA {
            throw StoreError(
                "\(shown) was copied or restored without its extended attributes (\(attribute)): its stubs would be taken "
                    + "for files of zeros. Copy or restore it with them, such as by rsync -aHAX or tar --xattrs")
        }
    }
}
