import HSMCore
import Synchronization

import struct NIOConcurrencyHelpers.NIOLockedValueBox

/// Keeps the answers of servers without range support between the reads of an object. A read that continues where
/// another stopped takes over its body. An object that is read from front to back is therefore sent once.
///
/// Reads of one object take turns, the one with the lowest offset first. Reads of other objects do not wait. A body
/// that no read takes for some seconds is dropped, with everything known about its object. Every method may be called
/// on any thread.
final class WholeBodies: Sendable {
    /// A body and the offset of its next byte.
    struct Kept: @unchecked Sendable {
        // Sendable: the lock of ``WholeBodies`` gives it to one read at a time.
        var body: HTTPBody
        var position: Int
    }

    private struct Place {
        var kept: Kept?
        /// A read holds the turn. It will call ``WholeBodies/putDown(_:of:)`` or ``WholeBodies/forget(_:)``.
        var isTaken = false
        /// The offsets of the reads that wait for their turn.
        var waiting: [Int] = []
        /// Identifies the kept body; it changes with each one.
        var generation = 0
    }

    private static let timeout = Duration.seconds(5)
    private static let pollInterval = Duration.milliseconds(2)
    /// Whether the server's last answer to a range was the whole object. Reads then take turns from the first one on.
    private let sendsAll = Atomic(false)
    private let places = NIOLockedValueBox<[RemoteObject: Place]>([:])

    /// How a read starts.
    enum Turn {
        /// The read asks the server, and takes no turn.
        case new
        /// It is the read's turn, with the kept body if it can be used. The read has to call ``putDown(_:of:)`` or
        /// ``forget(_:)``.
        case own(Kept?)
        case wait
    }

    /// Waits for the read's turn; ``Turn/wait`` is never returned.
    ///
    /// - Throws: `.cancelled`.
    func turn(of object: RemoteObject, at offset: Int) async throws(FillError) -> Turn {
        defer { leave(object, offset) }
        while true {
            // Dropping a body closes its connection, which happens outside of the lock.
            var dropped: Kept?
            let turn = places.withLockedValue { places -> Turn in
                guard var place = places[object] else {
                    guard sendsAll.load(ordering: .relaxed) else { return .new }
                    places[object] = Place(isTaken: true)
                    return .own(nil)
                }
                // The object may have been forgotten and added again meanwhile.
                if !place.waiting.contains(offset) { place.waiting.append(offset) }
                places[object] = place
                guard !place.isTaken, place.waiting.min() == offset else { return .wait }
                places[object]?.isTaken = true
                places[object]?.kept = nil
                guard let kept = place.kept, kept.position <= offset else {
                    // Bytes that the body has passed cannot be read from it any more.
                    dropped = place.kept
                    return .own(nil)
                }
                return .own(kept)
            }
            withExtendedLifetime(dropped) {}
            guard case .wait = turn else { return turn }
            do { try await Task.sleep(for: Self.pollInterval) } catch { throw .cancelledRead }
        }
    }

    /// Notes whether the server answers a range with the whole object.
    func note(sendsAll now: Bool) {
        if sendsAll.load(ordering: .relaxed) != now { sendsAll.store(now, ordering: .relaxed) }
    }

    /// Keeps a body for the next read, and replaces the one that was kept.
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
            // Outside of the lock, because this closes a connection.
            withExtendedLifetime(dropped) {}
        }
    }

    /// Drops the kept body. The next read asks the server again.
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
