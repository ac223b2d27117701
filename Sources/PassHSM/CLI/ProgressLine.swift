import Glibc

/// Progress on stderr: on a terminal a line that is drawn over itself, otherwise a line a second. Used by one thread at
/// a time.
final class ProgressLine {
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private var next: ContinuousClock.Instant
    private var isDrawn = false
    private static let barWidth = 24

    init() { next = .now + .milliseconds(isTerminal ? 200 : 1000) }

    /// Shows `line`, at most ten times a second on a terminal and otherwise once a second.
    func show(_ line: () -> String) {
        guard ContinuousClock.now >= next else { return }
        next = .now + .milliseconds(isTerminal ? 100 : 1000)
        write(isTerminal ? "\r\u{1b}[K\(line())" : "\(line())\n")
        isDrawn = true
    }

    /// A bar for the front of a line; empty where stderr is no terminal to draw over.
    func bar(_ part: Int, of whole: Int) -> String {
        guard isTerminal else { return "" }
        let share = whole > 0 ? min(1, max(0, Double(part) / Double(whole))) : 1
        let count = Int(Double(Self.barWidth) * share)
        return "[" + String(repeating: "#", count: count) + String(repeating: "-", count: Self.barWidth - count) + "] "
    }

    /// Takes the line away.
    func finish() {
        if isTerminal && isDrawn { write("\r\u{1b}[K") }
        isDrawn = false
    }

    private func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = bytes.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
