import HSMControl
import HSMImport
import HSMSystem

/// The progress of a command that goes through a directory tree, on stderr. Used by one thread at a time.
final class TreeDisplay {
    private let counter: TreeCounter
    private let display = ProgressLine()

    /// - Parameter directory: its names are counted for the bar; nil: there is none.
    init(_ directory: BytePath?) { counter = TreeCounter(directory) }

    /// Shows the progress, at most as often as ``ProgressLine`` allows.
    func show(_ progress: ImportProgress) {
        let counts = progress.counts
        show(progress.entries, "\(counts.new) new, \(counts.changed) changed, \(TextTable.size(counts.bytes))")
    }

    /// Shows that `names` names are done, and `detail`, at most as often as ``ProgressLine`` allows.
    func show(_ names: Int, _ detail: @autoclosure () -> String) {
        display.show { line(names, detail()) }
    }

    /// Takes the bar away until the next time, for a line that stays.
    func clear() { display.finish() }

    /// Takes the bar away.
    func finish() {
        counter.cancel()
        display.finish()
    }

    private func line(_ names: Int, _ detail: String) -> String {
        // A tree that grows meanwhile has more names than were counted.
        guard let total = counter.total.map({ max($0, names) }), total > 0 else { return "\(names) names: \(detail)" }
        let share = "\(names) of \(total) names, \(TextTable.percent(names, of: total))"
        return "\(display.bar(names, of: total))\(share): \(detail)"
    }
}
