import Glibc
import HSMCore
import HSMSystem
import Synchronization

/// Another source behind a simulated network with a given latency and bandwidth, which can be held and can fail: for
/// tests and measurements.
///
/// Each read waits while the `hold` path exists, and then for the latency. Its bytes then arrive at the bandwidth,
/// which all reads share in the order in which they got this far. Waiting holds no thread, and ends when the task is
/// cancelled. Listing is passed on unchanged.
package final class SimulatedSource: RemoteStore {
    private let inner: any RemoteStore
    private let behaviour: SimulatedBehaviour
    /// The moment at which all bytes that were asked for so far have arrived. A leaf lock.
    private let lineIsFree = Mutex<ContinuousClock.Instant>(.now)
    private static let pollInterval = Duration.milliseconds(5)
    /// How many bytes are passed on at once: about ten milliseconds' worth, in whole default granules.
    private let piece: Int

    package var location: String { inner.location }
    package var fetchUnit: Int { inner.fetchUnit }
    package var nearFetchUnit: Int { inner.nearFetchUnit }

    package init(_ inner: any RemoteStore, _ behaviour: SimulatedBehaviour) {
        self.inner = inner
        self.behaviour = behaviour
        let granule = GranuleLayout.defaultGranuleSize
        piece = max(1, (behaviour.bandwidth ?? 0) / 100 / granule) * granule
    }

    package func lookAnew() { inner.lookAnew() }
    package func agrees(_ recorded: RemoteObject, with found: RemoteObject, isMoved: Bool) -> Bool {
        inner.agrees(recorded, with: found, isMoved: isMoved)
    }

    package func list(_ body: (RemoteEvent) throws -> Void) async throws { try await inner.list(body) }

    package func read(
        _ object: RemoteObject, range: Range<Int>,
        deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        if !isMeant(object.key) { return try await inner.read(object, range: range, deliver: deliver) }
        try await reach(object.key)
        guard let bandwidth = behaviour.bandwidth else {
            return try await spoil(object, range: range, deliver: deliver)
        }
        let whole = Self.time(for: range.count, at: bandwidth)
        let start = lineIsFree.withLock { free in
            let start = max(free, .now)
            free = start + whole
            return start
        }
        var sent = 0
        // The time of bytes that are not sent after all goes to later reads.
        defer { lineIsFree.withLock { $0 -= whole - Self.time(for: sent, at: bandwidth) } }
        while sent < range.count {
            let next = min(sent + piece, range.count)
            try await Self.wait(until: start + Self.time(for: next, at: bandwidth))
            let part = range.lowerBound + sent..<range.lowerBound + next
            try await spoil(object, range: part, deliver: deliver)
            sent = next
        }
    }

    /// Passes on the inner source's answer, made wrong as the behaviour asks.
    private func spoil(
        _ object: RemoteObject, range: Range<Int>, deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        if Self.isOn(behaviour.short) {
            let part = range.lowerBound..<range.lowerBound + range.count / 2
            try await inner.read(object, range: part, deliver: deliver)
        } else if Self.isOn(behaviour.long) {
            try await inner.read(object, range: range) { piece throws(FillError) in
                try (Array(piece) + [0]).withBytes(deliver)
            }
        } else if Self.isOn(behaviour.garbage) {
            try await inner.read(object, range: range) { piece throws(FillError) in
                try piece.map { ~$0 }.withBytes(deliver)
            }
        } else {
            try await inner.read(object, range: range, deliver: deliver)
        }
    }

    private func isMeant(_ key: RemoteKey) -> Bool {
        behaviour.only.map { key.bytes.starts(with: $0.utf8) } ?? true
    }

    private static func isOn(_ path: String?) -> Bool { path.map(exists) ?? false }

    package func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        if isMeant(key) { try await reach(key) }
        return try await inner.current(key)
    }

    /// The wait, and possibly the failure, before the first byte of an answer.
    private func reach(_ key: RemoteKey) async throws(FillError) {
        while let path = behaviour.hold, Self.exists(path) { try await Self.wait(until: .now + Self.pollInterval) }
        try await Self.wait(until: .now + behaviour.latency)
        if let path = behaviour.fail, Self.exists(path) {
            throw FillError.remoteFailed("reading \(key): \(path) exists, so the simulated remote fails")
        }
    }

    private static func time(for bytes: Int, at bandwidth: Int) -> Duration {
        .nanoseconds(Int64(Double(bytes) / Double(bandwidth) * 1e9))
    }

    private static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    private static func wait(until instant: ContinuousClock.Instant) async throws(FillError) {
        if Task.isCancelled { throw .cancelledRead }
        guard instant > .now else { return }
        do { try await Task.sleep(until: instant, tolerance: .zero, clock: .continuous) } catch { throw .cancelledRead }
    }
}
