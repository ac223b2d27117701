import Logging
import Synchronization

/// Holds back repeated log lines: a program that tries a failing file over and over would fill the disk.
///
/// It lets one line through for each file and cause a minute, and at most ``most`` different lines. The number of lines
/// held back is logged with the next line after their minute is over. Safe on every thread.
final class LogLimit: Sendable {
    /// Different lines in a minute.
    private static let maxLines = 256
    private static let period: Duration = .seconds(60)

    private struct Line {
        let end: ContinuousClock.Instant
        let text: String
        var heldBack = 0
    }

    private struct State {
        var lines: [String: Line] = [:]
        /// The earliest end of a line's minute.
        var nextEnd: ContinuousClock.Instant?
        var others = 0
    }

    /// A leaf lock.
    private let state = Mutex(State())

    /// Returns notes about lines that were held back, and whether this line is to be logged.
    func admit(_ key: String, _ text: String, now: ContinuousClock.Instant = .now) -> (notes: [String], isLogged: Bool)
    {
        state.withLock { state in
            let notes = Self.endMinutes(&state, now)
            if state.lines[key] != nil {
                state.lines[key]?.heldBack += 1
                return (notes, false)
            }
            guard state.lines.count < Self.maxLines else {
                state.others += 1
                return (notes, false)
            }
            let line = Line(end: now + Self.period, text: text)
            state.lines[key] = line
            state.nextEnd = min(state.nextEnd ?? line.end, line.end)
            return (notes, true)
        }
    }

    private static func endMinutes(_ state: inout State, _ now: ContinuousClock.Instant) -> [String] {
        guard let end = state.nextEnd, end <= now else { return [] }
        let ended = state.lines.filter { $0.value.end <= now }
        for key in ended.keys { state.lines[key] = nil }
        state.nextEnd = state.lines.values.map(\.end).min()
        var notes = ended.values.filter { $0.heldBack > 0 }.map { "\($0.heldBack) times more: \($0.text)" }.sorted()
        if state.others > 0 { notes.append("\(state.others) other lines were held back") }
        state.others = 0
        return notes
    }
}

/// Hands on what ``LogLimit`` admits.
struct LimitedLogHandler: LogHandler {
    private var handler: any LogHandler
    private let limit: LogLimit

    init(_ handler: any LogHandler, _ limit: LogLimit) { (self.handler, self.limit) = (handler, limit) }

    var metadata: Logger.Metadata {
        get { handler.metadata }
        set { handler.metadata = newValue }
    }

    var logLevel: Logger.Level {
        get { handler.logLevel }
        set { handler.logLevel = newValue }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { handler[metadataKey: key] }
        set { handler[metadataKey: key] = newValue }
    }

    func log(event: LogEvent) {
        let details = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        let text = ([event.message.description] + details).joined(separator: " ")
        let (notes, isLogged) = limit.admit("\(event.level) \(text)", text)
        for note in notes {
            var said = event
            said.level = .warning
            said.message = "\(note)"
            said.metadata = nil
            handler.log(event: said)
        }
        if isLogged { handler.log(event: event) }
    }
}
