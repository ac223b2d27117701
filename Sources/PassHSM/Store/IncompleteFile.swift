import Glibc
import HSMCore
import HSMSystem

/// An incomplete file in use: the engine's part and the store's part of it.
package final class IncompleteFile: Sendable {
    package let fill: FillFile
    package let stored: StoredFile
    /// The lower file may not be changed, nor its record.
    package let isReadOnly: Bool

    init(fill: FillFile, stored: StoredFile, isReadOnly: Bool = false) {
        self.fill = fill
        self.stored = stored
        self.isReadOnly = isReadOnly
    }
}

/// The state of a file, as its record says.
package enum Residence: Sendable {
    /// The file has no record, or one that says that it is local.
    case local
    case dual(Record.Flags)
    /// `modified` is the modification time to show.
    case incomplete(Record.State, Record.Flags, modified: RemoteEntry.Time)
    /// The record cannot be believed: reads and writes fail.
    case unknown(RecordError)
}

extension Residence {
    package init(_ record: Record) { self.init(record.state, record.flags, modified: record.modified) }

    fileprivate init(_ value: RecordValue) { self.init(value.state, value.flags, modified: value.modified) }

    private init(_ state: Record.State, _ flags: Record.Flags, modified: RemoteEntry.Time) {
        switch state {
        case .local: self = .local
        case .dual: self = .dual(flags)
        case .partial, .offline, .releasing: self = .incomplete(state, flags, modified: modified)
        }
    }
}

extension Store {
    /// The state of the file that `file` is open on (O_PATH will do).
    package func residence(of file: Descriptor) -> Residence {
        do throws(RecordError) { return try believedValue(of: file).map { Residence($0.0) } ?? .local } catch {
            return .unknown(error)
        }
    }

    /// The state as ``residence(of:)`` gives it, and the change time to show for the file, whose attributes are
    /// `status`.
    package func residence(of file: Descriptor, _ status: stat) -> (Residence, changed: timespec) {
        do throws(RecordError) {
            guard let (record, _) = try believedValue(of: file) else { return (.local, status.st_ctim) }
            return (Residence(record), record.stamp.time(status))
        } catch {
            return (.unknown(error), status.st_ctim)
        }
    }

    /// Takes an incomplete file into use: reads its record and its residency map.
    ///
    /// At most one such object may exist for a file at a time. If the map of a clean file is missing or damaged, a new
    /// one is started, and everything is fetched again.
    ///
    /// - Parameters:
    ///   - lower: the lower file, open for reading and writing; kept.
    ///   - isReadOnly: `lower` is open only for reading, because the file may not be changed: absent content stays
    ///     absent (EPERM).
    ///   - isStrict: content of the remote is present only after all of it was checked.
    /// - Returns: nil when the file is complete.
    /// - Throws: EIO with the cause when the record or, for a dirty file, the map cannot be believed.
    package func use(
        _ lower: Descriptor, engine: FillEngine, isStrict: Bool = false, isReadOnly: Bool = false
    ) throws(FillError) -> IncompleteFile? {
        let size: Int
        do throws(Errno) {
            try committer.start()
            size = try lower.stat().st_size
        } catch {
            throw FillError(lowerErrno: error, "examining the lower file")
        }
        do throws(RecordError) {
            guard var record = try record(of: lower), !record.isComplete else { return nil }
            if record.flags.contains(.dirty) {
                // A power cut may have come between the truncation and its record.
                record.limit = min(record.limit, size)
            } else if size != record.object.size {
                throw RecordError("the lower file has \(size) bytes instead of \(record.object.size)")
            }
            let isClean = !record.flags.contains(.dirty)
            let isCheckable = isClean && record.object.digest != nil
            let isUnchecked = isStrict && !isCheckable
            let (stored, present) = try restore(record, lower, isStaged: isStrict && isCheckable)
            let fill = FillFile(
                object: record.object, destination: stored, layout: record.layout,
                present: isUnchecked && isClean ? GranuleSet() : present,
                check: isCheckable ? (isStrict ? .all : .last) : .none,
                refusal: isUnchecked ? Self.uncheckable : isReadOnly ? Self.unchangeable : nil,
                engine: engine)
            if fill.isComplete && !isReadOnly { stored.contentComplete() }
            // These writes come from before a crash, and are not durable yet.
            if stored.hasPending { stored.scheduleCommit() }
            return IncompleteFile(fill: fill, stored: stored, isReadOnly: isReadOnly)
        } catch {
            log.error("\(error.cause)")
            throw FillError(.io, .recordCorrupt, error.cause)
        }
    }

    static let unchangeable = FillError(
        .permission, .lowerFailed, "the lower file may not be changed (chattr +i or +a), so that nothing can be filled")

    static let uncheckable = FillError(
        .io, .uncheckable, "the content cannot be checked: there is no digest of it, or it has local changes")

    /// The file with the residency map of `record`, as far as the map can be believed.
    private func restore(
        _ record: Record, _ lower: Descriptor, isStaged: Bool
    ) throws(RecordError) -> (StoredFile, GranuleSet) {
        guard record.state == .partial else {
            let stored = StoredFile(store: self, lower: lower, record: record, residencyMap: nil, isStaged: isStaged)
            return (stored, GranuleSet())
        }
        do throws(RecordError) {
            let (residencyMap, granules) = try readMap(of: record)
            let stored = StoredFile(
                store: self, lower: lower, record: record, residencyMap: residencyMap, isStaged: isStaged,
                written: granules.written, volatile: granules.volatile)
            return (stored, granules.present)
        } catch {
            if record.flags.contains(.dirty) {
                throw RecordError("\(error.cause), and the file has local changes")
            }
            log.warning("\(error.cause); the file is fetched again", metadata: ["key": "\(record.object.key)"])
            var record = record
            record.state = .offline
            record.beginEpoch()
            do throws(Errno) {
                record = try rewrite(record, to: lower, showing: record.changeTime(try lower.stat()))
            } catch {
                throw RecordError("the record cannot be written: \(error.text)")
            }
            let stored = StoredFile(store: self, lower: lower, record: record, residencyMap: nil, isStaged: isStaged)
            return (stored, GranuleSet())
        }
    }

    /// The granules of a residency map, as far as it is believed.
    private struct MappedGranules {
        var present = GranuleSet()
        /// Present granules that were written locally.
        var written = GranuleSet()
        /// Written granules that may not be durable.
        var volatile = GranuleSet()
    }

    /// The granules that are present by `record`'s residency map. Changes nothing.
    ///
    /// - Throws: `RecordError` when the map cannot be believed.
    func presentGranules(_ record: Record) throws(RecordError) -> GranuleSet {
        guard record.state == .partial else { return GranuleSet() }
        do throws(RecordError) { return try readMap(of: record, forUse: false).granules.present } catch {
            // A clean file with such a map is fetched again when it is taken into use.
            if record.flags.contains(.dirty) { throw error }
            return GranuleSet()
        }
    }

    private func readMap(
        of record: Record, forUse: Bool = true
    ) throws(RecordError) -> (residencyMap: ResidencyMap, granules: MappedGranules) {
        let residencyMap = try ResidencyMap.open(
            in: partial, name: record.identity.name, epoch: record.epoch, granules: record.layout.count)
        let (count, session) = (record.layout.count, residencyMap.session)
        var granules = MappedGranules()
        var doubtful: [Int] = []
        var isDamaged = false
        do throws(Errno) {
            let pages = try residencyMap.forEachPage { first, page in
                guard let page else {
                    isDamaged = true
                    return
                }
                for granule in first..<min(first + ResidencyMap.granulesPerPage, max(first, count)) {
                    let presence = page.presence(of: granule)
                    if presence == .absent { continue }
                    if presence == .writtenVolatile && session != self.session {
                        doubtful.append(granule)
                        continue
                    }
                    let one = granule..<granule + 1
                    granules.present.insert(one)
                    if presence != .filled { granules.written.insert(one) }
                    if presence == .writtenVolatile { granules.volatile.insert(one) }
                }
            }
            if pages.missing > 0 { isDamaged = true }
            if forUse && !isDamaged {
                // The bits come first: the new session would make them believable.
                for granule in doubtful {
                    try residencyMap.update(granule..<granule + 1) { page, granule in page.set(.absent, of: granule) }
                }
                try residencyMap.confirm(self.session, pages: pages.found)
            }
        } catch {
            throw RecordError("the residency map cannot be read: \(error.text)")
        }
        if isDamaged { throw RecordError("a page of the residency map is damaged or lost") }
        return (residencyMap, granules)
    }
}
