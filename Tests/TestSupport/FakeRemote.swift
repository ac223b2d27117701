import HSMCore
import HSMSystem
import Synchronization

/// A remote tier of endless objects whose bytes are ``Pattern``'s. It can be held, fail, send too little or too much, and
/// have a version.
package final class FakeRemote: RemoteStore {
    package struct Behaviour: Sendable {
        /// Reads wait for as long as this is true.
        package var isHeld: Bool
        /// A read that comes to this offset waits there.
        package var barrier: Int?
        /// Reads of this offset fail when they get to it, and deliver what is before it.
        package var failure: (offset: Int, error: FillError)?
        /// How many reads fail so.
        package var failuresLeft = Int.max
        /// Bytes left out at the end of each read.
        package var missing: Int
        /// Bytes sent behind the end of each read.
        package var extra: Int
        package var chunk: Int
        /// Everybody gets this, whatever is asked for.
        package var outage: FillError?
        package var probesHang = false
        /// What there is now: another version cannot be read. The first byte of the version is the seed of its content.
        /// Without it whatever is asked for is there in any version, and nothing is known of it.
        package var current: RemoteObject?
        /// What a listing tells, and the error that ends it.
        package var listing: [RemoteEvent]
        package var listingFailure: FillError?

        package init(
            isHeld: Bool = false, missing: Int = 0, extra: Int = 0, chunk: Int = 1000, outage: FillError? = nil,
            listing: [RemoteEvent] = [], listingFailure: FillError? = nil
        ) {
            (self.isHeld, self.missing, self.extra, self.chunk) = (isHeld, missing, extra, chunk)
            (self.outage, self.listing, self.listingFailure) = (outage, listing, listingFailure)
        }
    }

    package struct Log: Sendable {
        package var reads: [Range<Int>] = []
        package var probes = 0
        package var running = 0
        package var maxRunning = 0
    }

    /// When everything that there is was modified.
    package static let modified = RemoteEntry.Time(seconds: 1_000_000_000, nanoseconds: 123_456_789)

    package let location = "fake:"
    package let fetchUnit: Int
    package let behaviour: Mutex<Behaviour>
    private let state = Mutex(Log())

    package init(fetchUnit: Int = 1 << 20, _ behaviour: Behaviour = .init()) {
        self.fetchUnit = fetchUnit
        self.behaviour = Mutex(behaviour)
    }

    /// One that has nothing.
    package static func empty() -> FakeRemote {
        FakeRemote(Behaviour(outage: FillError(.io, .remoteGone, "nothing is there")))
    }

    package var log: Log { state.withLock { $0 } }
    package func forgetReads() { state.withLock { $0.reads = [] } }

    /// Nobody answers any more.
    package func goDown(_ error: FillError) { behaviour.withLock { $0.outage = error } }

    /// Everything is well.
    package func comeBack() { behaviour.withLock { $0 = Behaviour() } }

    package func hold(_ isHeld: Bool) { behaviour.withLock { $0.isHeld = isHeld } }

    package func setBarrier(_ offset: Int?) { behaviour.withLock { $0.barrier = offset } }

    // MARK: RemoteStore

    package func read(
        _ object: RemoteObject, range: Range<Int>, deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        state.withLock {
            $0.reads.append(range)
            $0.running += 1
            $0.maxRunning = max($0.maxRunning, $0.running)
        }
        defer { state.withLock { $0.running -= 1 } }
        try await wait("while held") { $0.isHeld }
        let behaviour = behaviour.withLock { behaviour in
            let current = behaviour
            if behaviour.failuresLeft > 0 { behaviour.failuresLeft -= 1 } else { behaviour.failure = nil }
            return behaviour.failure == nil ? behaviour : current
        }
        if let outage = behaviour.outage { throw outage }
        if let current = behaviour.current, object.version != current.version {
            throw FillError(.io, .remoteChanged, "another version")
        }
        let seed = behaviour.current?.version.bytes.first.map { Int($0) } ?? 0
        var offset = range.lowerBound
        let end = range.upperBound - behaviour.missing + behaviour.extra
        let failure = behaviour.failure.flatMap { (offset..<end).contains($0.offset) ? $0 : nil }
        while offset < end {
            try await wait("at the barrier") { $0.barrier == offset }
            if let failure, offset == failure.offset { throw failure.error }
            let barrier = self.behaviour.withLock(\.barrier).flatMap { $0 > offset ? $0 : nil }
            let next = min(offset + behaviour.chunk, failure?.offset ?? end, barrier ?? end, end)
            try Pattern.bytes(offset..<next, seed: seed).withBytes(deliver)
            offset = next
        }
    }

    package func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        state.withLock { $0.probes += 1 }
        try await wait("while it hung") { $0.probesHang }
        let behaviour = behaviour.withLock { $0 }
        if let outage = behaviour.outage { throw outage }
        guard let object = behaviour.current else { throw FillError(.io, .remoteGone, "nothing is known of \(key)") }
        return (object, Self.modified)
    }

    package func list(_ body: (RemoteEvent) throws -> Void) async throws {
        let behaviour = behaviour.withLock { $0 }
        if let outage = behaviour.outage { throw outage }
        for event in behaviour.listing { try body(event) }
        if let failure = behaviour.listingFailure { throw failure }
    }

    private func wait(_ moment: String, while condition: (Behaviour) -> Bool) async throws(FillError) {
        while behaviour.withLock({ condition($0) }) {
            do { try await Task.sleep(for: .milliseconds(1)) } catch {
                throw FillError(.interrupted, .cancelled, "cancelled \(moment)")
            }
        }
    }
}
