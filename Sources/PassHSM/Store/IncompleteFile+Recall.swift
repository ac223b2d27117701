import Glibc
import HSMCore
import HSMSystem

extension IncompleteFile {
    /// Bytes that one request of a recall waits for. The engine's deadline holds for each request.
    private static let recallStep = 8 << 20

    /// Fills the whole file, after everything else that wants the remote. Returns when it is done, or the task is
    /// cancelled.
    ///
    /// - Parameter progress: is given the count of bytes that became present or already were; false ends the recall.
    package func recall(by engine: FillEngine, _ progress: (Int) -> Bool) async throws(Refusal) {
        var offset = 0
        while offset < fill.layout.limit {
            let end = min(offset + Self.recallStep, fill.layout.limit)
            do throws(FillError) {
                // Only the daemon's own user and root can request a recall.
                try await engine.waitForResidence(of: offset..<end, in: fill, priority: .background, user: geteuid())
            } catch { throw Refusal(error.cause) }
            if !progress(end - offset) { throw Refusal("given up") }
            offset = end
        }
    }
}

extension Refusal {
    /// Repeats `body` for half a second while the file is busy: a file that was just closed may still be in the course
    /// of its last close.
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
