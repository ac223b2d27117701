import HSMCore
import Synchronization

/// A remote tier of one endless object whose bytes follow from their offset. It can be held, fail, and send too little or
/// too much.
final class FakeSource: RemoteStore {
    struct Behaviour: Sendable {
        /// Reads wait for as long as this is true.
        var isHeld = false
        /// A read that comes to this offset waits there.
        var barrier: Int?
        /// Reads of this offset fail when they get to it, and deliver what is before it.
        var failure: (offset: Int, error: FillError)?
        /// How many reads fail so.
        var failuresLeft = Int.max
        /// Bytes left out at the end of each read.
        var missing = 0
        /// Bytes sent behind the end of each read.
        var extra = 0
        var chunk = 1000
        /// What everybody gets, whatever is asked for.
        var outage: FillError?
        var probesHang = false
    }

    struct Log: Sendable {
        var reads: [Range<Int>] = []
        var probes = 0
        var running = 0
        var mostRunning = 0
    }

    let location = "fake:"
    let fetchUnit: Int
    let behaviour: Mutex<Behaviour>
    private let state = Mutex(Log())

    init(fetchUnit: Int, _ behaviour: Behaviour = .init()) {
        self.fetchUnit = fetchUnit
        self.behaviour = Mutex(behaviour)
    }

    var log: Log { state.withLock { $0 } }

    static func byte(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: offset &* 31 ^ offset >> 8 ^ offset >> 16) }

    /// Nobody answers any more.
    func goDown(_ error: FillError) { behaviour.withLock { $0.outage = error } }

    func comeBack() { behaviour.withLock { $0 = Behaviour() } }

    func hold(_ isHeld: Bool) { behaviour.withLock { $0.isHeld = isHeld } }

    func setBarrier(_ offset: Int?) { behaviour.withLock { $0.barrier = offset } }

    func read(
        _ object: RemoteObject, range: Range<Int>,
        deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        state.withLock {
            $0.reads.append(range)
            $0.running += 1
            $0.mostRunning = max($0.mostRunning, $0.running)
        }
        defer { state.withLock { $0.running -= 1 } }
        while behaviour.withLock(\.isHeld) {
            if Task.isCancelled { throw FillError(.interrupted, .cancelled, "cancelled while held") }
            try? await Task.sleep(for: .milliseconds(1))
        }
        let behaviour = behaviour.withLock { behaviour in
            let current = behaviour
            if behaviour.failuresLeft > 0 { behaviour.failuresLeft -= 1 } else { behaviour.failure = nil }
            return behaviour.failure == nil ? behaviour : current
        }
        if let outage = behaviour.outage { throw outage }
        var offset = range.lowerBound
        let end = range.upperBound - behaviour.missing + behaviour.extra
        let failure = behaviour.failure.flatMap { (offset..<end).contains($0.offset) ? $0 : nil }
        while offset < end {
            while self.behaviour.withLock(\.barrier) == offset {
                if Task.isCancelled { throw FillError(.interrupted, .cancelled, "cancelled at the barrier") }
                try? await Task.sleep(for: .milliseconds(1))
            }
            if let failure, offset == failure.offset { throw failure.error }
            let barrier = self.behaviour.withLock(\.barrier).flatMap { $0 > offset ? $0 : nil }
            let next = min(offset + behaviour.chunk, failure?.offset ?? end, barrier ?? end, end)
            let bytes = (offset..<next).map(Self.byte(at:))
            // The closure of withUnsafeBytes is not typed, so that its error is carried out by hand.
            var refusal: FillError?
            bytes.withUnsafeBytes { buffer in
                do throws(FillError) { try deliver(buffer) } catch { refusal = error }
            }
            if let refusal { throw refusal }
            offset = next
        }
    }

    func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        state.withLock { $0.probes += 1 }
        while behaviour.withLock(\.probesHang) {
            do { try await Task.sleep(for: .milliseconds(1)) } catch {
                throw FillError(.interrupted, .cancelled, "cancelled while it hung")
            }
        }
        throw behaviour.withLock(\.outage) ?? FillError(.io, .remoteGone, "nothing is known of \(key)")
    }

    func list(_ body: (RemoteEvent) throws -> Void) async throws {}
}

/// A lower file in memory that counts how often each granule is written.
final class MemoryDestination: FillDestination {
    struct State: Sendable {
        var content: [UInt8]
        var writes: [Int: Int] = [:]
        var errors: [FillError] = []
        /// How often it was told that everything is there.
        var completions = 0
        /// What a check of the content answers, and how often it was asked for.
        var verdict: FillError?
        var checks = 0
        /// A write of this granule fails.
        var refused: Int?
    }

    static let refusal = FillError(.noSpace, .lowerFailed, "no space left")
    let layout: GranuleLayout
    let state: Mutex<State>

    init(_ layout: GranuleLayout) {
        self.layout = layout
        state = Mutex(State(content: [UInt8](repeating: 0, count: layout.limit)))
    }

    func fill(_ granules: Range<Int>, with bytes: UnsafeRawBufferPointer) throws(FillError) {
        let isRefused = state.withLock { state in
            if let refused = state.refused, granules.contains(refused) { return true }
            state.content.replaceSubrange(layout.bytes(of: granules), with: bytes)
            for granule in granules { state.writes[granule, default: 0] += 1 }
            return false
        }
        if isRefused { throw Self.refusal }
    }

    func contentComplete() { state.withLock { $0.completions += 1 } }

    func checkContent() -> FillError? {
        state.withLock { state in
            state.checks += 1
            return state.verdict
        }
    }

    func fillFailed(_ error: FillError) { state.withLock { $0.errors.append(error) } }

    /// Whether `range` holds the remote's bytes.
    func isRight(_ range: Range<Int>) -> Bool {
        state.withLock { state in range.allSatisfy { state.content[$0] == FakeSource.byte(at: $0) } }
    }
}
