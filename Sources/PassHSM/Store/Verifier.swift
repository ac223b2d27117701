import Glibc
import HSMCore
import HSMSystem

/// Compares everything that a store records with the lower tree: records, residency maps, the bytes of partial files,
/// those of complete files (with the recorded checksum or digest, or with the remote), and the contents of `.passhsm`.
///
/// Without ``repairs`` it changes nothing. With it, wrong parts of clean files are no longer believed, so that they are
/// fetched again. It never drops bytes that may be the only copy of local changes. Used by one thread.
package final class Verifier {
    let store: Store
    let repairs: Bool
    /// The remote that complete files are compared with.
    var remote: (any RemoteStore)?
    /// The pool on which the remote is asked.
    let pool = BlockingPool(name: "verify", limit: 2)
    /// Count of files in a row that the remote failed to give.
    var failures = 0
    var counts = VerifyCounts()
    /// Residency maps and keys that no file has needed so far.
    var maps: Set<String>
    var keys: Set<String>
    private let report: (Disagreement) -> Void
    let firstPause: Duration
    private let progress: (VerifyCounts) -> Void
    private var walk: NameWalk
    /// Something could not be looked at, and may need a map or key that seems to be left over.
    private var isPartial = false
    /// Files with several names that were looked at already.
    private var linked: Set<ino_t> = []

    /// - Parameters:
    ///   - store: opened for use with `keepsLeftovers`, so that nobody else changes anything.
    ///   - remote: the store's source, to compare complete files with; nil: no comparison with the remote.
    ///   - firstPause: before a failed comparison is tried again; four times as long before each further attempt.
    ///   - report: called with each finding, after the finding was handled.
    ///   - progress: called every now and then.
    package init(
        _ store: Store, repairs: Bool, remote: (any RemoteStore)? = nil, firstPause: Duration = .milliseconds(200),
        report: @escaping (Disagreement) -> Void, progress: @escaping (VerifyCounts) -> Void = { _ in }
    ) throws(Errno) {
        self.store = store
        self.repairs = repairs
        self.remote = remote
        self.firstPause = firstPause
        self.report = report
        self.progress = progress
        walk = try NameWalk(top: store.tree.root, hiding: Store.folder)
        maps = try Self.names(in: store.partial)
        keys = try store.keys.map { folder throws(Errno) in try Self.names(in: folder) } ?? []
    }

    private static func names(in directory: Descriptor) throws(Errno) -> Set<String> {
        var result: Set<String> = []
        for name in try DirectoryReader.names(in: directory) {
            result.insert(String(decoding: name.dropLast(), as: UTF8.self))
        }
        return result
    }

    /// - Throws: `Errno` when the walk cannot go on; the findings until then were reported.
    package func run() throws(Errno) -> VerifyCounts {
        while let step = try walk.next() {
            switch step {
            case .unlisted(let error): unreadable(walk.path, "cannot be listed", error)
            case .name(let entry):
                counts.names += 1
                progress(counts)
                if let directory = visit(entry.name) { try walk.enter(directory, entry.name) }
            }
        }
        checkLeftovers()
        return counts
    }

    /// - Returns: the directory to enter, when the name is one.
    private func visit(_ name: [UInt8]) -> Descriptor? {
        let path = walk.path(of: name)
        do throws(Errno) {
            let place = try Descriptor.openPlace(at: walk.current, name)
            let status = try place.stat()
            // A mount inside the tree is not part of it; it shows where there is no private mount.
            if status.st_dev != store.tree.device { return nil }
            // Records of format 1 of directories and links need their keys, too.
            if !keys.isEmpty, let handle = try? FileHandle(of: place) { keys.remove(handle.name) }
            if status.st_mode & S_IFMT == S_IFDIR { return try Descriptor.openDirectory(at: walk.current, name) }
            guard status.st_mode & S_IFMT == S_IFREG else { return nil }
            if status.st_nlink > 1 && !linked.insert(status.st_ino).inserted { return nil }
            try check(VerifiedFile(path: path, place: place, status: status))
        } catch {
            if error.rawValue != ENOENT { unreadable(path, "cannot be looked at", error) }
        }
        return nil
    }

    private func unreadable(_ path: [UInt8], _ what: String, _ error: Errno) {
        isPartial = true
        found(Disagreement(path: path, kind: .unreadable, cause: "\(what): \(error.text)", outcome: .left))
    }

    // MARK: Findings

    func found(_ finding: Disagreement) {
        counts.findings += 1
        if finding.outcome == .dropped { counts.dropped += 1 }
        report(finding)
    }

    /// Reports a fault of `file`, after `drop` if the wrong part may be dropped.
    ///
    /// - Parameter keep: the reason why the wrong part must not be dropped in any case.
    func found(
        _ kind: Disagreement.Kind, of file: VerifiedFile, _ range: Range<Int>?, _ cause: String, keep: String? = nil,
        drop: () throws(Errno) -> Void
    ) {
        var finding = Disagreement(path: file.path, kind: kind, range: range, cause: cause, outcome: .found)
        if let keep {
            finding.cause += "; \(keep)"
            finding.outcome = .left
        } else if repairs {
            do throws(Errno) {
                try drop()
                finding.outcome = .dropped
            } catch {
                finding.cause += "; it could not be dropped: \(error.text)"
                finding.outcome = .left
            }
        }
        found(finding)
    }

    func read(_ bytes: Int) {
        counts.bytes.add(saturating: bytes)
        progress(counts)
    }

    // MARK: .passhsm

    /// A kill or a removal leaves such files, and nothing is believed of them: this is no fault.
    private func checkLeftovers() {
        for (directory, names) in [(store.partial, maps), (store.keys, keys)] {
            guard let directory else { continue }
            for name in names where isLeftover(name) {
                counts.leftovers += 1
                if repairs { try? directory.unlink(Array(name.utf8)) }
            }
        }
    }

    private func isLeftover(_ name: String) -> Bool {
        guard isPartial, let handle = FileHandle(name: name) else { return true }
        // The file may be one that could not be looked at, unless it is gone.
        do throws(Errno) { _ = try store.tree.open(handle, O_RDONLY) } catch { return error.rawValue == ESTALE }
        return false
    }
}

/// A regular file of the lower tree.
struct VerifiedFile {
    let path: [UInt8]
    /// O_PATH.
    let place: Descriptor
    let status: stat
}
