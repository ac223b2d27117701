import HSMCore
import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Bodies of servers that know no ranges, kept between the reads of an object: one that goes on where another stopped takes
/// its body over, so that an object that is read from front to back is sent once.
///
/// Reads of one object take turns, the foremost first; those of other objects do not wait. A body that nobody takes for
/// some seconds is dropped, and what was known about its object with it.
final class WholeBodies: Sendable {
    /// A body and the offset of its next byte.
    struct Kept: @unchecked Sendable {
        // Sendable: in the hands of one read at a time, by the lock of ``WholeBodies``.
        var body: HTTPBody
        var position: Int
    }

    private struct Place {
        var kept: Kept?
        /// A read has taken what was kept, and will put something down or forget the object.
        var isTaken = false
        /// Offsets that reads wait to go on at.
        var waiting: [Int] = []
        /// Tells a body from the one before it.
        var generation = 0
    }

    private static let timeout = Duration.seconds(5)
    private static let pollInterval = Duration.milliseconds(2)
    /// The server's last answer to a range was a whole object: reads take turns from the first one on.
    private let sendsAll = Atomic(false)
    private let places = NIOLockedValueBox<[RemoteObject: Place]>([:])

    /// What a read of `object` from `offset` on is to begin with.
    enum Turn {
        /// As if nothing was known.
        case new
        /// It is the read's turn: it has to call ``putDown(_:of:)`` or ``forget(_:)``.
        case own(Kept?)
        case wait
    }

    /// Waits for the read's turn; ``Turn/wait`` is never returned.
    ///
    /// - Throws: `.cancelled`.
    func turn(of object: RemoteObject, at offset: Int) async throws(FillError) -> Turn {
        defer { leave(object, offset) }
        while true {
            // What is dropped closes a connection: outside the lock.
            var dropped: Kept?
            let turn = places.withLockedValue { places -> Turn in
                guard var place = places[object] else {
                    guard sendsAll.load(ordering: .relaxed) else { return .new }
                    places[object] = Place(isTaken: true)
                    return .own(nil)
                }
                // Again, when it was forgotten and is known again.
                if !place.waiting.contains(offset) { place.waiting.append(offset) }
                places[object] = place
                guard !place.isTaken, place.waiting.min() == offset else { return .wait }
                places[object]?.isTaken = true
                places[object]?.kept = nil
                guard let kept = place.kept, kept.position <= offset else {
                    // What it has passed cannot be had from it any more.
                    dropped = place.kept
                    return .own(nil)
                }
                return .own(kept)
            }
            withExtendedLifetime(dropped) {}
            guard case .wait = turn else { return turn }
            do { try await Task.sleep(for: Self.pollInterval) } catch { throw .cancelledRequest }
        }
    }

    /// Notes what the server answers a range with.
    func note(sendsAll now: Bool) {
        if sendsAll.load(ordering: .relaxed) != now { sendsAll.store(now, ordering: .relaxed) }
    }

    /// Keeps a body for the next read, in place of what was kept.
    func putDown(_ kept: Kept, of object: RemoteObject) {
        let generation = places.withLockedValue { places in
            var place = places[object] ?? Place()
            place.isTaken = false
            place.kept = kept
            place.generation += 1
            places[object] = place
            return place.generation
        }
        Task {
            try? await Task.sleep(for: Self.timeout)
            let dropped = places.withLockedValue { places -> Place? in
                guard let place = places[object], place.generation == generation, !place.isTaken else { return nil }
                return places.removeValue(forKey: object)
            }
            // Outside the lock: it closes a connection.
            withExtendedLifetime(dropped) {}
        }
    }

    /// The server is asked anew by the next read.
    func forget(_ object: RemoteObject) {
        let dropped = places.withLockedValue { $0.removeValue(forKey: object) }
        withExtendedLifetime(dropped) {}
    }

    private func leave(_ object: RemoteObject, _ offset: Int) {
        places.withLockedValue { places in
            guard let index = places[object]?.waiting.firstIndex(of: offset) else { return }
            places[object]?.waiting.remove(at: index)
        }
    }
}
