import Glibc
import HSMStore
import HSMSystem

/// The change time that a file shows while the lower file's is only what the daemon's own work left it at: fills and records
/// move it, and programs such as tar(1) would take that for a change of the file.
struct ShownChange {
    /// The lower file's change time after the daemon's last work on it; nil while it is at work.
    var own: timespec?
    var shown: timespec

    /// What to show for a file whose change time is `lower`; nil when somebody else has changed it since.
    func time(lower: timespec) -> timespec? {
        guard let own else { return shown }
        return own.tv_sec == lower.tv_sec && own.tv_nsec == lower.tv_nsec ? shown : nil
    }
}

extension Inode.State {
    /// The daemon begins to work on the file, which was last changed at `lower`.
    mutating func beginOwnChange(at lower: timespec) {
        change = ShownChange(own: nil, shown: change?.time(lower: lower) ?? lower)
    }

    /// The daemon's work is done, and left the change time at `lower`.
    mutating func endOwnChange(at lower: timespec) { change?.own = lower }

    /// A user changes the file.
    mutating func noteUserChange() {
        if change?.own == nil { change?.shown = .changedNow } else { change = nil }
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
