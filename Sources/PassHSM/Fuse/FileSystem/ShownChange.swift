import Glibc
import HSMStore
import HSMSystem

/// The change time that a file shows while the lower file's own was last moved by the daemon's work. Fills and records
/// move it, and programs such as tar(1) would take that for a change of the file.
struct ShownChange {
    /// The lower file's change time after the daemon's last work on it; nil while the daemon works on it.
    var own: timespec?
    var shown: timespec

    /// The time to show for a file whose change time is `lower`; nil when another program has changed the file since.
    func time(lower: timespec) -> timespec? {
        guard let own else { return shown }
        return own.tv_sec == lower.tv_sec && own.tv_nsec == lower.tv_nsec ? shown : nil
    }
}

extension Inode.State {
    /// Notes that the daemon begins to work on the file, which was last changed at `lower`.
    mutating func beginOwnChange(at lower: timespec) {
        change = ShownChange(own: nil, shown: change?.time(lower: lower) ?? lower)
    }

    /// Notes that the daemon's work is done, and left the change time at `lower`.
    mutating func endOwnChange(at lower: timespec) { change?.own = lower }

    /// Nanoseconds until a new change of the file can be told from the daemon's last work on it.
    var ownChangeDelay: Int {
        guard let own = change?.own else { return 0 }
        // A dirty file shows its own change time.
        switch lifecycle.residence {
        case .dual(let flags), .incomplete(_, let flags, _): if flags.contains(.dirty) { return 0 }
        case .local, .unknown, nil: return 0
        }
        let (now, past) = (timespec.changedNow, own.tv_sec.addingReportingOverflow(1))
        guard !past.overflow, (own.tv_sec...past.partialValue).contains(now.tv_sec) else { return 0 }
        let passed = (now.tv_sec - own.tv_sec) * 1_000_000_000 + now.tv_nsec - own.tv_nsec
        return min(max(0, Store.changeDelay - passed), Store.changeDelay)
    }

    /// Notes that a user changes the file.
    mutating func noteUserChange() {
        let now = timespec.changedNow
        if change?.own == nil { change?.shown = now } else { change = nil }
        lifecycle.noteUserChange()
        if let content = lifecycle.content, !content.isReadOnly { content.stored.noteUserChange(at: now) }
    }
}

extension timespec {
    /// The time that the kernel gives a file that changes now.
    fileprivate static var changedNow: timespec {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &time)
        return time
    }
}
