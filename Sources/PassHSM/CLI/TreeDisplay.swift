import Glibc
import HSMControl
import HSMImport
import HSMRemotes

/// The progress of a command that goes through a directory tree, on stderr: a bar that is drawn over itself on a terminal, otherwise a line a second. Used by
/// one thread at a time.
final class TreeDisplay {
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private let counter: TreeCounter
    private var next: ContinuousClock.Instant
    private var isDrawn = false
    private static let barWidth = 24

    /// - Parameter location: the directory whose names are counted for the bar.
    init(_ location: RemoteLocation) {
        counter = TreeCounter(location)
        next = .now + .milliseconds(isTerminal ? 200 : 1000)
    }

    /// Shows the progress, when the last time is long enough ago.
    func show(_ progress: ImportProgress) {
        let counts = progress.counts
        show(progress.entries, "\(counts.new) new, \(counts.changed) changed, \(TextTable.size(counts.bytes))")
    }

    /// Shows that `names` names are done, and `detail`, when the last time is long enough ago.
    func show(_ names: Int, _ detail: @autoclosure () -> String) {
        guard ContinuousClock.now >= next else { return }
        next = .now + .milliseconds(isTerminal ? 100 : 1000)
        let line = line(names, detail())
        write(isTerminal ? "\r\u{1b}[K\(line)" : "\(line)\n")
        isDrawn = true
    }

    /// Takes the bar away until the next time, for a line that stays.
    func clear() {
        if isTerminal && isDrawn { write("\r\u{1b}[K") }
    }

    /// Takes the bar away.
    func finish() {
        counter.cancel()
        clear()
    }

    private func line(_ names: Int, _ detail: String) -> String {
        // A tree that grows meanwhile has more names than were counted.
        guard let total = counter.total.map({ max($0, names) }), total > 0 else { return "\(names) names: \(detail)" }
        let share = "\(names) of \(total) names, \(TextTable.percent(names, of: total))"
        guard isTerminal else { return "\(share): \(detail)" }
        let full = Self.barWidth * names / total
        let bar = String(repeating: "#", count: full) + String(repeating: "-", count: Self.barWidth - full)
        return "[\(bar)] \(share): \(detail)"
    }

    private func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = bytes.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
