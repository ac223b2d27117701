import Glibc
import HSMCore
import HSMRemotes
import HSMStore
import HSMSystem
import Logging

/// Builds stubs of a whole source in a lower directory, or updates those of an earlier import.
///
/// A stub has everything of its file except the content, and is never visible without its record. If an import broke
/// off, the next run goes on from there. It changes nothing local, and deletes nothing unless it is told to.
package struct Importer: Sendable {
    package struct Options: Sendable {
        /// Removes clean stubs and files that are gone in the source, and directories that become empty by this.
        package var deleteGone = false
        /// The bound of names that may be removed; if there are more, none is removed.
        package var deleteLimit = DeleteLimit.usual
        /// Makes names again that were removed or renamed in the lower directory.
        package var restores = false
        /// Allows a lower directory that was imported from another source.
        package var rebind = false
        /// A PEM file of certificate authorities for the remote tier's servers, also for later mounts.
        package var authorities: String?
        /// Options of later mounts, by their names; recorded options that are not among these stay.
        package var mountSettings: [String: String] = [:]
        /// Bytes of a granule of new files, one of ``GranuleLayout/granuleSizes``; nil: as before.
        package var granuleSize: Int?
        /// Owners and modes for the names of a web server or a bucket, in place of those that the remote gives; nil
        /// fields: as before. Fields that are set also apply to existing names.
        package var rights = RemoteRights.Given()
        /// The user's mask of modes, for names whose mode a web server or a bucket does not give.
        package var umask: mode_t = 0o022
        /// Avoids O_TMPFILE, as the import always does where the lower file system lacks it.
        var avoidsUnnamedFiles = false

        package init() {}
    }

    private let location: RemoteLocation
    private let source: any RemoteStore
    private let lower: [UInt8]
    private let options: Options
    private let log: Logger

    /// - Parameters:
    ///   - location: the address with everything needed to reach it; it is recorded.
    ///   - source: the remote at `location`.
    ///   - lower: path of the lower directory, without NUL; made when it is missing.
    package init(
        _ location: RemoteLocation, _ source: any RemoteStore, into lower: [UInt8], options: Options = .init(),
        log: Logger
    ) {
        self.location = location
        self.source = source
        self.lower = lower
        self.options = options
        self.log = log
    }

    /// Imports, and returns when everything is on disk.
    ///
    /// - Parameter progress: called now and then on a thread of the importer, while the caller's thread waits.
    /// - Throws: `StoreError` or `ImportError` when the import cannot begin; `ImportError` and `FillError` when it
    ///   breaks off. The work until then is valid, and the next import goes on from there.
    package func run(progress: @escaping (ImportProgress) -> Void) throws -> ImportSummary {
        try prepareLower()
        let store = try Store.open(
            (lower + [0]).map { CChar(bitPattern: $0) }, create: true, purpose: "import from \(location)", log: log)
        let recorded = try store.configuration()
        let (fileSystem, isSameFileSystem) = try fileSystem(after: recorded)
        let isSame = isLocation(of: recorded)
        guard try recorded.source.isEmpty || isSame || options.rebind || !isBound(store, recorded) else {
            throw ImportError(
                "\(lowerName) was imported from \(recorded.source), not from \(location); change that with --rebind")
        }
        var configuration = recorded
        configuration.source = location.url
        configuration.isSourceComplete = true
        configuration.sourceFileSystem = fileSystem
        if let authorities = options.authorities { configuration.authorities = authorities }
        configuration.mountSettings.merge(options.mountSettings) { $1 }
        if let size = options.granuleSize { configuration.granuleSize = size }
        let rights = try self.rights(with: configuration)
        configuration.importSettings.merge(options.rights.recorded) { $1 }
        if !rights.isForeign || rights.trustsRemote { configuration.withholdsRights = false }
        // The import sets this again when it has run to its end.
        configuration.isImported = false
        try store.save(configuration)
        let isMoved = !isSame || !isSameFileSystem
        let (summary, objectBytes) = try build(in: store, &configuration, recorded, rights, isMoved: isMoved, progress)
        configuration.isImported = true
        try store.save(configuration)
        compact(store, expecting: objectBytes)
        return summary
    }

    /// Compacts the tables. The import is done, even if this fails.
    private func compact(_ store: Store, expecting objectBytes: Int) {
        do throws(StoreError) {
            let freed = try Compactor(store).run(expecting: objectBytes)
            if freed > 0 { log.info("the tables of remote objects were compacted: \(freed) bytes less") }
        } catch { log.warning("\(lowerName): the tables of remote objects stay as they are: \(error)") }
    }

    private func build(
        in store: Store, _ configuration: inout StoreConfiguration, _ recorded: StoreConfiguration,
        _ rights: RemoteRights, isMoved: Bool, _ progress: @escaping (ImportProgress) -> Void
    ) throws -> (ImportSummary, objectBytes: Int) {
        let withdraws = rights.isForeign && !rights.trustsRemote && !configuration.withholdsRights
        let before = try store.importedNames()
        // If no file system is recorded for the source, this directory may only be the mount point of the real source.
        let isDoubtful = !configuration.sourceFileSystem.isEmpty && recorded.sourceFileSystem.isEmpty
        let refusesEmpty = before?.isEmpty != true && !options.deleteLimit.isEverything
        // Only the one task below uses both, and this thread waits for it.
        nonisolated(unsafe) let progress = progress
        nonisolated(unsafe) let builder = try TreeBuilder(
            store: store, granuleSize: configuration.granuleSize, options: options, rights: rights, before: before,
            refusesEmpty: refusesEmpty && !recorded.source.isEmpty && (options.deleteGone || isDoubtful),
            remote: ListedRemote(source, isMoved: isMoved))
        let isWithheld: Bool
        do {
            isWithheld = try waitFor {
                let isWithheld = try !withdraws || builder.withdrawRights()
                try await builder.build(from: source, progress: progress)
                return isWithheld
            }
        } catch {
            if builder.hasTouched {
                try store.save(ImportedNames(builder.takeNoted(before: before)))
            } else {
                // The tree has nothing of this source: the directory keeps its old configuration.
                try store.save(recorded)
            }
            throw error
        }
        do throws(Errno) { try store.tree.directory.original.syncFileSystem() } catch {
            throw ImportError("\(lowerName) could not be synced: \(error.text)")
        }
        // The list of before may know names that could not be read now.
        let isWhole = builder.summary.counts.unreadable == 0
        try store.save(ImportedNames(builder.takeNoted(before: isWhole ? nil : before)))
        configuration.withholdsRights = rights.isForeign && !rights.trustsRemote && isWithheld
        return (builder.summary, builder.objectBytes)
    }

    /// Whether the tree has anything of the recorded source.
    private func isBound(_ store: Store, _ recorded: StoreConfiguration) throws -> Bool {
        if recorded.isImported { return true }
        var walk = try TreeWalk(top: try Descriptor.openDirectory(at: store.tree.root, [0x2e])) { path, _, _ in
            path == Array(Store.folder.utf8)
        }
        while let step = try walk.next() {
            switch step {
            case .name(let name, _), .left(let name, _, _, _):
                if try LocalEntry(try Descriptor.openPlace(at: walk.current, name), store).isImported { return true }
            case .failed: return true
            }
        }
        return false
    }

    /// The recorded form of the file system that the source is on, and whether it is the file system of the
    /// import before.
    ///
    /// - Throws: when it is another one, unless the directory is to be bound anew (`--rebind`).
    private func fileSystem(after configuration: StoreConfiguration) throws -> (text: String, isSame: Bool) {
        guard let found = try location.address.fileSystem() else { return ("", true) }
        guard !configuration.sourceFileSystem.isEmpty, isLocation(of: configuration) else { return (found.text, true) }
        let before = try? SourceIdentity(text: configuration.sourceFileSystem)
        let isSame = before.map { found.isSame(as: $0) } ?? false
        guard isSame || options.rebind else {
            let other = before.map { "\($0)" } ?? "recorded in an unknown form"
            throw ImportError(
                "the source \(location) is on another file system (\(found)) than before (\(other)); mount that one, "
                    + "or accept this one with --rebind")
        }
        return (found.text, isSame)
    }

    private func isLocation(of configuration: StoreConfiguration) -> Bool {
        guard let old = try? RemoteLocation(configuration.source) else { return false }
        return location.address.isSamePlace(as: old.address, isComplete: configuration.isSourceComplete)
    }

    /// The rights by this import's options, and by those of earlier imports.
    private func rights(with configuration: StoreConfiguration) throws(ImportError) -> RemoteRights {
        RemoteRights(
            isForeign: location.address.isForeign,
            trustsRemote: try RemoteRights.trustsRemote(by: configuration.mountSettings),
            given: options.rights.over(try RemoteRights.Given(recorded: configuration.importSettings)),
            umask: options.umask)
    }

    private var lowerName: String { BytePath(lower).description }

    // MARK: Before the first change

    /// Makes the lower directory, when it is missing and neither directory would be inside the other.
    private func prepareLower() throws {
        do {
            guard let path = location.address.directory?.bytes else {
                if try existingLower() == nil { try makeLower() }
                return
            }
            let source = try Identity(of: try Descriptor.openTop(path))
            if let directory = try existingLower() {
                let lower = try Identity(of: directory)
                if lower == source { throw ImportError("\(lowerName) is the source itself") }
                if try ancestors(of: try Descriptor.openTop(path)).contains(lower) {
                    throw ImportError("the source \(location) is inside \(lowerName)")
                }
                try expect(source, notAbove: directory)
            } else {
                let parent = try Descriptor.openTop(parentOfLower)
                try expect(source, notAbove: parent)
                try makeLower()
            }
        } catch let error as Errno {
            throw ImportError("\(lowerName): \(error.text)")
        }
    }

    private func makeLower() throws(Errno) {
        let mode: mode_t = location.address.isForeign ? 0o777 & ~options.umask : 0o755
        _ = try withName(lower) { path throws(Errno) in try check { mkdir(path, mode) } }
    }

    private struct Identity: Hashable {
        let device: dev_t
        let inode: ino_t

        init(of directory: Descriptor) throws(Errno) {
            let status = try directory.stat()
            device = status.st_dev
            inode = status.st_ino
        }
    }

    private var parentOfLower: [UInt8] {
        var path = lower[...]
        while path.count > 1, path.last == 0x2f { path.removeLast() }
        guard let slash = path.lastIndex(of: 0x2f) else { return [0x2e] }
        return slash == 0 ? [0x2f] : Array(path[..<slash])
    }

    private func existingLower() throws(Errno) -> Descriptor? {
        do throws(Errno) { return try Descriptor.openTop(lower) } catch {
            if error.rawValue == ENOENT { return nil }
            throw error
        }
    }

    private func expect(_ source: Identity, notAbove directory: Descriptor) throws {
        if try ancestors(of: directory).contains(source) {
            throw ImportError("\(lowerName) is inside the source \(location)")
        }
    }

    /// The identities of the directory itself and of every directory above it, up to the root.
    private func ancestors(of directory: Descriptor) throws(Errno) -> Set<Identity> {
        var result: Set<Identity> = []
        var current = directory
        while result.insert(try Identity(of: current)).inserted {
            current = try Descriptor.openPlaceOfDirectory(at: current, [0x2e, 0x2e])
        }
        return result
    }
}
