import Glibc
import HSMCore
import HSMSystem

/// Counts of an ``Adopter``'s work.
package struct AdoptCounts: Sendable, Equatable {
    /// Names of every kind.
    package var names = 0
    /// Files whose records were already their own.
    package var own = 0
    /// Directories, symlinks and special files, and local files.
    package var others = 0
    /// Complete files, proven to have the remote's content.
    package var complete = 0
    /// Files with local changes, which were kept.
    package var dirty = 0
    /// Partial files; each present granule is proven.
    package var partial = 0
    /// Files of which nothing is present, or nothing could be proven.
    package var offline = 0
    /// Files among the offline ones that had content, which was given up.
    package var givenUp = 0
    /// Files that were left as they were, because adoption would lose something that only they have.
    package var left = 0

    package init() {}
}

/// Makes a lower directory that was copied, moved or restored usable again: the records of its files still name the
/// files from which they were copied.
///
/// It believes of a file only what it can prove, and always keeps local changes. It leaves a file as it is if it cannot
/// decide; that file answers EIO as before. A run that broke off can be repeated: files are independent, and the top
/// directory comes last. Used by one thread.
package final class Adopter {
    let store: Store
    /// Also gives up files that may have been changed beside a mount.
    let refetchesChanged: Bool
    private(set) var counts = AdoptCounts()
    let maps: AdoptedMaps
    private let report: (_ path: [UInt8], _ cause: String) -> Void
    private let progress: (AdoptCounts) -> Void
    private var walk: NameWalk

    /// - Parameters:
    ///   - store: opened with ``Store/openForAdoption(_:log:)``.
    ///   - refetchesChanged: clean files whose size or time is not the recorded one are fetched again; otherwise they
    ///     are left.
    ///   - report: called with each file that is left as it is, and why.
    package init(
        _ store: Store, refetchesChanged: Bool, report: @escaping (_ path: [UInt8], _ cause: String) -> Void,
        progress: @escaping (AdoptCounts) -> Void = { _ in }
    ) throws(Errno) {
        self.store = store
        self.refetchesChanged = refetchesChanged
        self.report = report
        self.progress = progress
        maps = try AdoptedMaps(store, isMoved: store.isMoved())
        walk = try NameWalk(top: store.tree.root, hiding: Store.folder)
    }

    /// - Throws: `Errno` when it cannot go on; the work that was done until then is valid.
    package func run() throws(Errno) -> AdoptCounts {
        while let step = try walk.next() {
            switch step {
            case .unlisted(let error): throw error
            case .name(let entry):
                counts.names += 1
                progress(counts)
                if let directory = try visit(entry.name) { try walk.enter(directory, entry.name) }
            }
        }
        try store.tree.directory.original.syncFileSystem()
        try maps.finish(all: counts.left == 0)
        // The top directory's record marks that all is done.
        _ = try adoptOther(store.tree.root, Array(".".utf8))
        try store.tree.directory.original.syncFileSystem()
        return counts
    }

    /// - Returns: the directory to enter, when the name is one.
    private func visit(_ name: [UInt8]) throws(Errno) -> Descriptor? {
        let place: Descriptor
        do throws(Errno) { place = try Descriptor.openPlace(at: walk.current, name) } catch {
            if error.rawValue == ENOENT { return nil }
            throw error
        }
        let path = walk.path(of: name)
        let status = try place.stat()
        if status.st_dev != store.tree.device { return nil }
        let type = status.st_mode & S_IFMT
        if type == S_IFREG {
            try adoptFile(AdoptedFile(path: path, place: place, status: status))
        } else {
            counts.others += 1
            try adoptOther(place, path)
        }
        return type == S_IFDIR ? try Descriptor.openDirectory(at: walk.current, name) : nil
    }

    /// Such a record tells only the remote object that the directory, link or special file was made of.
    private func adoptOther(_ place: Descriptor, _ path: [UInt8]) throws(Errno) {
        if case .foreign(let record, _) = ownership(of: place, path) { try store.write(record, to: place) }
    }

    private func adoptFile(_ file: AdoptedFile) throws(Errno) {
        let (record, owner): (Record, RecordValue.Owner)
        switch ownership(of: file.place, file.path) {
        case .foreign(let found, let old): (record, owner) = (found, old)
        case .own:
            counts.own += 1
            return try maps.keep(file.place)
        case .local:
            counts.others += 1
            return
        case .unknown: return
        }
        try Failpoint.reach("adopt.file")
        let outcome: Outcome
        if record.state == .local {
            try store.write(record, to: file.place)
            outcome = .other
        } else if record.flags.contains(.dirty) {
            outcome = try adoptDirty(file, record, owner)
        } else {
            outcome = try adoptClean(file, record, owner)
        }
        switch outcome {
        case .other: counts.others += 1
        case .complete: counts.complete += 1
        case .dirty: counts.dirty += 1
        case .partial: counts.partial += 1
        case .offline(let hadContent):
            counts.offline += 1
            if hadContent { counts.givenUp += 1 }
        case .left(let cause): leave(file.path, cause)
        }
    }

    enum Outcome {
        case other, complete, dirty, partial
        case offline(hadContent: Bool)
        case left(String)
    }

    func leave(_ path: [UInt8], _ cause: String) {
        counts.left += 1
        report(path, cause)
    }

    private enum Ownership {
        /// The file has no record.
        case local
        case own
        /// The record, made to name this file, and its old owner.
        case foreign(Record, RecordValue.Owner)
        /// The record cannot be believed; this was reported.
        case unknown
    }

    private func ownership(of place: Descriptor, _ path: [UInt8]) -> Ownership {
        let bytes: [UInt8]
        do throws(Errno) { bytes = try store.value(of: place) } catch {
            if error.rawValue == ENODATA || error.rawValue == EOPNOTSUPP { return .local }
            leave(path, "the record cannot be read: \(error.text)")
            return .unknown
        }
        do throws(RecordError) {
            let value = try RecordValue(bytes)
            guard let own = try? FileHandle(of: place) else { throw RecordError("the file has no handle") }
            if value.owner.isOf(own) { return .own }
            switch value.objectLocation {
            case .inline(let object): return .foreign(Record(value, own, object, at: nil), value.owner)
            case .table(let reference):
                let object = try store.objects.object(at: reference, size: value.size)
                return .foreign(Record(value, own, object, at: reference), value.owner)
            case .keyFile(var object):
                guard case .handle(let old) = value.owner else { throw RecordError("the record has an unknown format") }
                object.key = try store.longKey(of: old)
                return .foreign(Record(value, own, object, at: nil), value.owner)
            }
        } catch {
            leave(path, error.cause)
            return .unknown
        }
    }
}

/// A regular file with a record of another one.
struct AdoptedFile {
    let path: [UInt8]
    /// O_PATH.
    let place: Descriptor
    let status: stat
}
