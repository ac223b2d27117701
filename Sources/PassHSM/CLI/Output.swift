import Glibc
import HSMControl
import HSMSystem
import Logging

/// The output of commands on stdout, and the log of commands and daemons. Names, keys and servers' texts are made safe
/// for a terminal here and nowhere else: each text stays one line, and no terminal obeys anything in it.
enum Output {
    static func lines(_ lines: [String]) {
        for line in lines { print(ArgumentText.readable(line)) }
    }

    /// JSON of several lines.
    static func json(_ value: some Encodable) throws {
        let text = String(decoding: try ControlJSON.encode(value, pretty: true), as: UTF8.self)
        var shown = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            // JSON's encoder leaves these characters as they are, and terminals obey them.
            if (0x7f...0x9f).contains(scalar.value) {
                shown.append(contentsOf: ("\\u00" + String(scalar.value, radix: 16)).unicodeScalars)
            } else {
                shown.append(scalar)
            }
        }
        print(String(shown))
    }

    /// A log on stderr.
    static func log(_ label: String) -> any LogHandler { LineLog(StreamLogHandler.standardError(label: label)) }

    private struct LineLog: LogHandler {
        private var lines: StreamLogHandler

        init(_ lines: StreamLogHandler) { self.lines = lines }

        var metadata: Logger.Metadata {
            get { lines.metadata }
            set { lines.metadata = newValue }
        }

        var logLevel: Logger.Level {
            get { lines.logLevel }
            set { lines.logLevel = newValue }
        }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { lines[metadataKey: key] }
            set { lines[metadataKey: key] = newValue }
        }

        func log(event: LogEvent) {
            var event = event
            event.message = "\(ArgumentText.readable(event.message.description))"
            event.metadata = event.metadata?.mapValues { .string(ArgumentText.readable("\($0)")) }
            lines.log(event: event)
        }
    }
}
