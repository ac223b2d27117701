import Glibc
import HSMCore
import HSMSystem

extension IncompleteFile {
    /// Bytes that one request of a recall waits for: each has the engine's deadline.
    private static let recallStep = 8 << 20

    /// Fills the file whole, behind whatever else wants the remote, and returns when it is done, or the task is cancelled.
    ///
    /// - Parameter progress: told the bytes that became present or were so already; false ends it.
    package func recall(by engine: FillEngine, _ progress: (Int) -> Bool) async throws(Refusal) {
        var offset = 0
        while offset < fill.layout.limit {
            let end = min(offset + Self.recallStep, fill.layout.limit)
            do throws(FillError) {
                // The daemon's own user and root alone can ask for it.
                try await engine.waitForResidence(of: offset..<end, in: fill, priority: .background, user: geteuid())
            } catch { throw Refusal(error.cause) }
            if !progress(end - offset) { throw Refusal("given up") }
            offset = end
        }
    }
}

extension Refusal {
    /// What was just closed may still be on its way to its end: a file that is busy is looked at again for half a
    /// second.
    package static func whenIdle<Result>(_ body: () throws(Refusal) -> Result) throws(Refusal) -> Result {
        for _ in 0..<50 {
            do throws(Refusal) { return try body() } catch {
                if !error.isBusy { throw error }
            }
            usleep(10_000)
        }
        return try body()
    }
}
