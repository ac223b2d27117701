import CLinux
import HSMSystem

/// One event that the kernel reports: see fanotify(7).
package struct Event: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// A file is being opened. The opener waits for the answer.
        case open
        /// Bytes are about to be read, written, mapped or cut off, in whole pages. The thread that does it waits for
        /// the answer.
        case access(Range<Int>)
        /// Events were lost.
        case overflow
        /// An event that was not asked for, several kinds in one event, or an access without a valid range. The reader
        /// denies it if it wants an answer.
        case unknown
    }

    /// The event's descriptor, by which it is answered; negative where there is none.
    package let number: Int32
    package let kind: Kind
    /// The event waits for an answer.
    package let wantsAnswer: Bool
    /// The thread that caused it.
    package let thread: Int32

    package init(number: Int32, kind: Kind, wantsAnswer: Bool, thread: Int32) {
        self.number = number
        self.kind = kind
        self.wantsAnswer = wantsAnswer
        self.thread = thread
    }
}

/// The events that one read(2) of a group's descriptor returned. Parsing is a pure function of the bytes: it opens,
/// closes and answers nothing.
package struct EventBatch: Equatable, Sendable {
    package private(set) var events: [Event] = []
    /// The bytes after the events are not in the known format: events may be lost.
    package let isDamaged: Bool

    /// - Parameter bytes: any bytes at all.
    package init(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes[...]
        let headerSize = MemoryLayout<passhsm_fan_event>.size
        while !rest.isEmpty {
            guard rest.count >= headerSize else { break }
            let header = UnsafeRawBufferPointer(rebasing: rest).loadUnaligned(as: passhsm_fan_event.self)
            let (whole, metadata) = (Int(header.event_len), Int(header.metadata_len))
            guard header.version == PASSHSM_FAN_METADATA_VERSION, metadata >= headerSize, whole >= metadata,
                whole <= rest.count
            else { break }
            let details = rest[(rest.startIndex + metadata)..<(rest.startIndex + whole)]
            events.append(Self.event(header, details))
            rest = rest[(rest.startIndex + whole)...]
        }
        isDamaged = !rest.isEmpty
    }

    private static func event(_ header: passhsm_fan_event, _ details: Slice<UnsafeRawBufferPointer>) -> Event {
        let kind: Event.Kind =
            switch header.mask {
            case PASSHSM_FAN_OPEN_PERM: .open
            case PASSHSM_FAN_PRE_ACCESS: range(in: details).map(Event.Kind.access) ?? .unknown
            case PASSHSM_FAN_Q_OVERFLOW: .overflow
            default: .unknown
            }
        let wantsAnswer = header.mask & (PASSHSM_FAN_OPEN_PERM | PASSHSM_FAN_PRE_ACCESS) != 0
        return Event(number: header.fd, kind: kind, wantsAnswer: wantsAnswer, thread: header.pid)
    }

    /// The range in the information records; nil without a valid one. An end beyond the largest offset is cut to that
    /// offset.
    private static func range(in details: Slice<UnsafeRawBufferPointer>) -> Range<Int>? {
        var rest = details
        while rest.count >= 4 {
            let record = UnsafeRawBufferPointer(rebasing: rest)
            let length = Int(record.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
            guard length >= 4, length <= record.count else { return nil }
            if record[0] == PASSHSM_FAN_INFO_RANGE, length >= MemoryLayout<passhsm_fan_range>.size {
                let range = record.loadUnaligned(as: passhsm_fan_range.self)
                guard let start = Int(exactly: range.offset) else { return nil }
                let (end, isTooLarge) = start.addingReportingOverflow(Int(clamping: range.count))
                return start..<(isTooLarge ? Int.max : end)
            }
            rest = rest[(rest.startIndex + length)...]
        }
        return nil
    }
}
