import Glibc
import HSMControl
import HSMImport
import HSMRemotes

/// The progress of an import on stderr: a bar that is drawn over itself on a terminal, otherwise a line a second. Used by
/// one thread at a time.
final class ImportDisplay {
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private let counter: TreeCounter
    private var next: ContinuousClock.Instant
    private var isDrawn = false
    private static let barWidth = 24

    init(_ location: RemoteLocation) {
        counter = TreeCounter(location)
        next = .now + .milliseconds(isTerminal ? 200 : 1000)
    }

    /// Shows the progress, when the last time is long enough ago.
    func show(_ progress: ImportProgress) {
        guard ContinuousClock.now >= next else { return }
        next = .now + .milliseconds(isTerminal ? 100 : 1000)
        write(isTerminal ? "\r\u{1b}[K\(line(progress))" : "\(line(progress))\n")
        isDrawn = true
    }

    /// Takes the bar away.
    func finish() {
        counter.cancel()
        if isTerminal && isDrawn { write("\r\u{1b}[K") }
    }

    private func line(_ progress: ImportProgress) -> String {
        let counts = progress.counts
        let detail = "\(counts.new) new, \(counts.changed) changed, \(TextTable.size(counts.bytes))"
        // A source that grows meanwhile has more names than were counted.
        guard let total = counter.total.map({ max($0, progress.entries) }), total > 0 else {
            return "\(progress.entries) names: \(detail)"
        }
        let share = "\(progress.entries) of \(total) names, \(TextTable.percent(progress.entries, of: total))"
        guard isTerminal else { return "\(share): \(detail)" }
        let full = Self.barWidth * progress.entries / total
        let bar = String(repeating: "#", count: full) + String(repeating: "-", count: Self.barWidth - full)
        return "[\(bar)] \(share): \(detail)"
    }

    private func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = bytes.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
