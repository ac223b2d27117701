import CLinux
import Glibc
import HSMSystem

/// The place of the files of a lower directory.
extension Store {
    package enum Layout: String, Sendable {
        /// In the lower directory itself, beside the store's folder, as in format 1. While nothing is mounted, programs
        /// find the stubs there, and read zeros for absent content.
        case top
        /// Some files have been moved from there into the tree. The next process that opens the store for use moves the
        /// rest.
        case moving
        /// In the tree, a directory of the store's folder. Programs enter it only by a mount.
        case inside
    }

    /// The tree, in the store's folder.
    static let treeName = "tree"
    /// The tree, below the lower directory.
    package static let treePath = "\(folder)/\(treeName)"

    /// O_PATH on the top of the files of a lower directory, by the mount that `lower` is open on.
    ///
    /// - Parameter shown: its path, for people.
    package static func top(of lower: Descriptor, shown: String) throws(StoreError) -> Descriptor {
        let folder = try openFolder(in: lower, named: lower, shown: shown)
        return try openTop(in: folder, of: lower, StoreConfiguration.read(from: folder).layout, shown: shown)
    }

    /// The store's folder of a lower directory, when it can be believed.
    ///
    /// - Parameter original: the lower directory under the name that the user gave, which may be in a mount.
    static func openFolder(
        in lower: Descriptor, named original: Descriptor, shown: String
    ) throws(StoreError) -> Descriptor {
        do throws(Errno) { return try Descriptor.openOwnFolder(at: lower, folder) } catch {
            guard error.rawValue == ENOENT else { throw StoreError(refusal("\(shown)/\(folder)", error)) }
            try expectNoMount(over: original, shown: shown)
            throw StoreError("\(shown) was never imported: there is no \(folder) in it")
        }
    }

    /// Makes the folder of a new store. It must not be in a mount, where it would be among the files of another store.
    static func makeFolder(in lower: LowerDirectory, shown: String) throws(StoreError) {
        if (try? lower.place.stat(Array(folder.utf8))) != nil { return }
        try expectNoMount(over: lower.original, shown: shown)
        do throws(Errno) { try makeFolder(at: lower.place, folder) } catch {
            throw StoreError(refusal("\(shown)/\(folder)", error))
        }
    }

    /// - Throws: when `lower` is in a mount of this program, even if the mount's daemon is gone.
    private static func expectNoMount(over lower: Descriptor, shown: String) throws(StoreError) {
        guard let path = path(of: lower), let entries = try? MountTable.entries() else { return }
        let mount = entries.enumerated().filter { $0.element.mountpoint.contains(path) }
            .max { ($0.element.mountpoint.bytes.count, $0.offset) < ($1.element.mountpoint.bytes.count, $1.offset) }
        guard let mount = mount?.element, mount.showsTree else { return }
        throw StoreError("\(shown) is in the mount on \(mount.mountpoint): unmount that first with `passhsm unmount`")
    }

    /// The path of the file that a descriptor is open on.
    static func path(of descriptor: Descriptor) -> BytePath? {
        try? descriptor.withProcPath { path throws(Errno) in try BytePath(cString: path).readLink() }
    }

    /// Opens the tree. No other user can have replaced it, because only this user can enter the folder. Its owner and
    /// mode can be anybody's: a mount shows them.
    static func openTop(
        in folder: Descriptor, of lower: Descriptor, _ layout: Layout, shown: String
    ) throws(StoreError) -> Descriptor {
        do throws(Errno) {
            if layout == .top { return try Descriptor.openPlaceOfDirectory(at: lower, [0x2e]) }
            return try Descriptor.openPlaceOfDirectory(at: folder, Array(treeName.utf8))
        } catch {
            throw StoreError("\(shown)/\(treePath): \(error.text)")
        }
    }

    /// The handle of the store's folder.
    package func folderHandle() throws(Errno) -> FileHandle { try FileHandle(of: directory) }

    /// A message about the place of the files; nil when programs find no files while nothing is mounted.
    package var exposure: String? {
        guard layout == .top else { return nil }
        return
            "an earlier version made this lower directory: while it is not mounted, programs find its files, and read "
            + "zeros in place of missing content; the next `passhsm import` moves the files into the store's folder"
    }

    // MARK: Local files beside the tree

    /// Names in the lower directory that no mount shows: they were made there while nothing was mounted.
    package func namesOutside() -> [[UInt8]] {
        guard layout == .inside else { return [] }
        return (try? relocation.names()) ?? []
    }

    /// Moves these names into the tree. A name that the tree already has stays. A mount shows all others from then on.
    ///
    /// - Returns: the names that stay, and why.
    /// - Throws: `StoreError` when something is in the way, before anything is moved.
    package func takeInNamesOutside() throws(StoreError) -> [(name: [UInt8], cause: String)] {
        guard layout == .inside else { return [] }
        defer { relocation.leaveNote(temporary) }
        return try relocation.move(into: tree.root).map { left in
            let isTaken = left.error.rawValue == EEXIST
            return (left.name, "it is in \(shown) itself: " + (isTaken ? "the tree has its name" : left.error.text))
        }
    }

    private var relocation: Relocation {
        Relocation(lower: tree.directory, folder: directory, shown: shown, log: log)
    }

    /// Leaves the note, and moves the top's record into the tree, when a store is opened for use.
    func finalizeTop() {
        guard layout == .inside else { return }
        relocation.leaveNote(temporary)
        // The directory that the files were moved from still has the top's record.
        guard hasMovedFiles, var record = (try? record(of: tree.directory.place)) ?? nil else { return }
        do throws(Errno) {
            record.identity = try FileHandle(of: tree.root)
            try write(record, to: tree.root)
            try tree.directory.original.withProcPath { path throws(Errno) in
                try ExtendedAttributes.remove(attribute, of: path, .follow)
            }
        } catch {
            log.warning("\(shown): the record of the top cannot be moved: \(error.text)")
        }
    }
}
