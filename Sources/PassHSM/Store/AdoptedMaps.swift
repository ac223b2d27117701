import Glibc
import HSMCore
import HSMSystem

/// The residency maps of a store that was copied: their names are handles that the copied files do not have.
final class AdoptedMaps {
    /// Holds the old maps while a moved store is adopted, apart from the new ones: a new handle may equal another
    /// file's old one.
    private static let oldFolder = "partial.old"
    /// The name of that folder until all old maps are in it.
    private static let newFolder = "partial.moving"

    private let store: Store
    /// The folders with old maps, and the name of each map there, by the hash of its old handle.
    private let folders: [(folder: Descriptor, names: [UInt64: String])]
    private let old: Descriptor?

    /// - Parameter isMoved: the whole store was copied, and not only some of its files.
    init(_ store: Store, isMoved: Bool) throws(Errno) {
        self.store = store
        var folder = try Self.open(Self.oldFolder, store)
        if isMoved && folder == nil {
            try Self.putAway(store)
            folder = try Self.open(Self.oldFolder, store)
        }
        old = folder
        folders = try [folder, store.partial].compactMap { $0 }.map { folder throws(Errno) in
            var names: [UInt64: String] = [:]
            for name in try DirectoryReader.names(in: folder) {
                let text = String(decoding: name.dropLast(), as: UTF8.self)
                if let handle = FileHandle(name: text) { names[handle.identityHash] = text }
            }
            return (folder, names)
        }
    }

    private static func open(_ name: String, _ store: Store) throws(Errno) -> Descriptor? {
        do throws(Errno) { return try Descriptor.openOwnFolder(at: store.directory, name) } catch {
            if error.rawValue == ENOENT { return nil }
            throw error
        }
    }

    private static func putAway(_ store: Store) throws(Errno) {
        let name = Array(newFolder.utf8)
        if try open(newFolder, store) == nil { try store.directory.makeDirectory(name, mode: 0o700) }
        let folder = try Descriptor.openOwnFolder(at: store.directory, newFolder)
        for entry in try DirectoryReader.names(in: store.partial) {
            let map = Array(entry.dropLast())
            try store.partial.rename(map, to: folder, map, replacing: true)
        }
        try folder.fsync()
        try store.partial.fsync()
        try store.directory.rename(name, to: store.directory, Array(oldFolder.utf8), replacing: false)
        try store.directory.fsync()
    }

    /// Keeps the map of a file whose record is its own.
    func keep(_ place: Descriptor) throws(Errno) {
        guard let old, let name = try? FileHandle(of: place).name else { return }
        do throws(Errno) { try old.link(Array(name.utf8), into: store.partial, Array(name.utf8)) } catch {
            guard error.rawValue == ENOENT || error.rawValue == EEXIST else { throw error }
            return
        }
        try old.unlink(Array(name.utf8))
        try store.partial.fsync()
    }

    /// Makes a map for `record`'s file from the map of the record's old owner, with the granules that the content
    /// proves. The new map is durable when this returns.
    ///
    /// - Parameters:
    ///   - size: of the lower file.
    ///   - lower: open for reading and writing; what was written is on disk.
    /// - Returns: how many granules are present.
    /// - Throws: `RecordError` when there is no map, or the map cannot be believed.
    func takeOver(
        _ record: Record, from owner: RecordValue.Owner, _ size: Int, _ lower: Descriptor
    ) throws(RecordError) -> Int {
        let map = try find(owner, record)
        let granules = record.layout.count
        var record = record
        // A power cut may have come between a truncation and its record.
        if record.flags.contains(.dirty) { record.limit = min(record.limit, size) }
        let layout = record.layout
        do throws(Errno) {
            let new = try ResidencyMap.create(
                in: store.partial, name: record.identity.name, epoch: record.epoch, granules: granules,
                session: store.session)
            // A killed daemon leaves its writes in the page cache, from which the copy was made. A power cut loses
            // them.
            let isSameBoot = map.session.boot == store.session.boot
            var isDamaged = false
            var count = 0
            let pages = try map.forEachPage { first, page throws(Errno) in
                guard let page else {
                    isDamaged = true
                    return
                }
                var found: [Int: (ResidencyMap.Presence, UInt32)] = [:]
                for granule in first..<max(first, min(first + ResidencyMap.granulesPerPage, layout.count)) {
                    let presence = page.presence(of: granule)
                    switch presence {
                    case .absent: continue
                    case .written: found[granule] = (.written, 0)
                    case .writtenVolatile: if isSameBoot { found[granule] = (.written, 0) }
                    case .filled:
                        let range = layout.bytes(of: granule..<granule + 1)
                        let checksum = page.checksum(of: granule)
                        // A truncation cut this granule: the checksum is of all its former bytes.
                        let isCut = range.upperBound == record.limit && record.limit < record.object.size
                        if isCut || lower.checksum(of: range) == checksum { found[granule] = (.filled, checksum) }
                    }
                }
                guard let low = found.keys.min(), let high = found.keys.max() else { return }
                count += found.count
                try new.update(low..<high + 1) { page, granule in
                    if let (presence, checksum) = found[granule] { page.set(presence, of: granule, checksum: checksum) }
                }
            }
            if isDamaged || pages.missing > 0 {
                store.forgetResidency(of: record.identity)
                throw Errno(rawValue: EILSEQ)
            }
            try new.sync()
            return count
        } catch {
            throw RecordError(
                error.rawValue == EILSEQ
                    ? "the residency map is damaged" : "the residency map cannot be taken over: \(error.text)")
        }
    }

    private func find(_ owner: RecordValue.Owner, _ record: Record) throws(RecordError) -> ResidencyMap {
        let hash =
            switch owner {
            case .handle(let handle): handle.identityHash
            case .hash(let hash): hash
            }
        for (folder, names) in folders {
            guard let name = names[hash] else { continue }
            return try ResidencyMap.open(in: folder, name: name, epoch: record.epoch, granules: record.layout.count)
        }
        throw RecordError("there is no residency map of it in .passhsm/partial")
    }

    /// - Parameter all: no file was left that may need an old map.
    func finish(all: Bool) throws(Errno) {
        guard let old, all else { return }
        for name in try DirectoryReader.names(in: old) { try old.unlink(Array(name.dropLast())) }
        try store.directory.removeDirectory(Array(Self.oldFolder.utf8))
    }
}
