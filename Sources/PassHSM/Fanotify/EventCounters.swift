import Synchronization

/// Counts events of each kind, and their outcomes.
package final class EventCounters: Sendable {
    package enum Name: Int, CaseIterable, Sendable {
        case open, access, allowed, denied
        /// The waiting thread was killed before the answer.
        case abandoned
        /// The kernel did not take the answer.
        case unanswered
        case answeredTwice
        /// Taken over from another daemon.
        case inherited
        /// The kernel could not hand an event over, and has denied it.
        case unreadable
    }

    private let counts = Mutex([Int](repeating: 0, count: Name.allCases.count))

    func add(_ name: Name, _ count: Int = 1) { counts.withLock { $0[name.rawValue] += count } }

    /// All of them, by name.
    package var snapshot: [(name: String, value: Int)] {
        let counts = counts.withLock { $0 }
        return Name.allCases.map { (name: "\($0)", value: counts[$0.rawValue]) }
    }
}
