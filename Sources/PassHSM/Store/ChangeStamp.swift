import Glibc
import HSMCore
import HSMSystem

/// A record's notes on change times. Only the kernel sets them, and each fill, record and release moves the lower
/// file's own.
///
/// A record says when it was written (``Record/written``): that is the store's last work on a clean file. It also says
/// which change time the mount showed then (``Record/changed``). While the lower file's change time is of the moment of
/// writing, nobody else has changed the file.
struct ChangeStamp: Equatable, Sendable {
    var changed: RemoteEntry.Time?
    var written: RemoteEntry.Time?

    /// The change time that the kernel gives to the writing may differ so far, in nanoseconds, from the clock's time
    /// before it: the kernel's own clock goes in ticks. A change by others within this span is taken for the store's.
    static let span = -10_000_000...maxDelay
    static let maxDelay = 20_000_000

    /// Whether `time` is a change time that the store's writing of the record left.
    func isOwn(_ time: timespec) -> Bool {
        guard let written else { return false }
        let (seconds, isTooLarge) = time.tv_sec.subtractingReportingOverflow(written.seconds)
        guard !isTooLarge, (-1...1).contains(seconds) else { return false }
        return Self.span.contains(seconds * 1_000_000_000 + time.tv_nsec - written.nanoseconds)
    }

    /// The change time to show for a file with `status`.
    func time(_ status: stat) -> timespec {
        guard let changed, isOwn(status.st_ctim) else { return status.st_ctim }
        return timespec(tv_sec: changed.seconds, tv_nsec: changed.nanoseconds)
    }
}

extension Record {
    private var stamp: ChangeStamp { ChangeStamp(changed: changed, written: written) }

    /// The change time to show for the lower file with `status`.
    package func changeTime(_ status: stat) -> timespec { stamp.time(status) }

    /// Whether only the store has changed the lower file since the record was written, as far as times tell.
    func isOwnChange(_ status: stat) -> Bool { stamp.isOwn(status.st_ctim) }
}

extension Store {
    /// Nanoseconds after the store's last work from which on a change by a user can be told from that work. It is more
    /// than a record's span, because both times are the kernel's, which go in ticks.
    package static let changeDelay = ChangeStamp.maxDelay + 20_000_000

    /// Writes as ``write(_:to:)`` does, for a file that only the store has changed since `changed`: the file goes on
    /// showing that change time. A dirty file shows the lower file's own.
    @discardableResult
    func rewrite(_ record: Record, to lower: Descriptor, showing changed: timespec) throws(Errno) -> Record {
        var record = record
        // The kernel may take longer than the span allows: then its change time is too late, and the record is written
        // again.
        for _ in 0..<3 {
            let isClean = !record.flags.contains(.dirty)
            let shown = RemoteEntry.Time(seconds: changed.tv_sec, nanoseconds: changed.tv_nsec)
            record.changed = isClean && !usersReachLower ? shown : nil
            record.written = isClean ? .now : nil
            record = try write(record, to: lower)
            if !isClean { break }
            if try record.isOwnChange(lower.stat()) { break }
        }
        return record
    }

    /// Whether the content of a complete file is the recorded one, by reading all of it; nil when neither checksum nor
    /// digest is recorded.
    func hasContent(_ lower: Descriptor, _ record: Record) throws(Errno) -> Bool? {
        let checksum = record.contentChecksum.flatMap { sum in
            RemoteDigest(.crc32c, withUnsafeBytes(of: sum.bigEndian) { Array($0) })
        }
        guard let expected = checksum ?? record.object.digest else { return nil }
        return try ContentDigest.of(size: record.object.size, expected.algorithm) { buffer, offset throws(Errno) in
            try lower.read(into: buffer, at: offset)
        } == expected
    }
}
