import HSMControl
import HSMImport
import HSMRemotes

/// The progress of an import on stderr. Used by one thread at a time.
final class ImportDisplay {
    private let counter: TreeCounter
    private let display = ProgressLine()

    init(_ location: RemoteLocation) { counter = TreeCounter(location) }

    /// Shows the progress, when the last time is long enough ago.
    func show(_ progress: ImportProgress) { display.show { line(progress) } }

    /// Takes the bar away.
    func finish() {
        counter.cancel()
        display.finish()
    }

    private func line(_ progress: ImportProgress) -> String {
        let counts = progress.counts
        let detail = "\(counts.new) new, \(counts.changed) changed, \(TextTable.size(counts.bytes))"
        // A source that grows meanwhile has more names than were counted.
        guard let total = counter.total.map({ max($0, progress.entries) }), total > 0 else {
            return "\(progress.entries) names: \(detail)"
        }
        let share = "\(progress.entries) of \(total) names, \(TextTable.percent(progress.entries, of: total))"
        return "\(display.bar(progress.entries, of: total))\(share): \(detail)"
    }
}
