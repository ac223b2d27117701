import HSMCore
import Synchronization
import TestSupport

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
        state.withLock { $0.content[range].elementsEqual(Pattern.bytes(range)) }
    }
}
