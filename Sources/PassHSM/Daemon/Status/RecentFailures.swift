import Glibc
import HSMControl
import HSMSystem
import Logging
import Synchronization

/// The last errors that were logged, for `passhsm status`.
package final class RecentFailures: Sendable {
    package init() {}

    private static let maxFailures = 10
    /// A leaf lock.
    private let failures = Mutex<[StatusReport.Failure]>([])

    /// Oldest first.
    var last: [StatusReport.Failure] { failures.withLock { $0 } }

    /// Returns a handler for a log: it collects the log's errors.
    package func handler() -> any LogHandler { Handler(failures: self) }

    private func add(_ cause: String) {
        failures.withLock { failures in
            if failures.count == Self.maxFailures { failures.removeFirst() }
            failures.append(StatusReport.Failure(cause: cause, time: time(nil)))
        }
    }

    private struct Handler: LogHandler {
        let failures: RecentFailures
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.error

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            guard event.level >= .error else { return }
            let details = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            failures.add(([event.message.description] + details).joined(separator: " "))
        }
    }
}
