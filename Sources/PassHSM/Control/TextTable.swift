/// Text in columns for people.
package enum TextTable {
    /// The rows with their columns padded to the same width; no column ends in spaces. Widths count characters.
    package static func lines(_ rows: [[String]], separator: String = "  ") -> [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in
            rows.map { $0.indices.contains(column) ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            var line = ""
            for (column, text) in row.enumerated() {
                if column > 0 { line += separator }
                line += text
                if column < row.count - 1 { line += String(repeating: " ", count: widths[column] - text.count) }
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }

    /// A number with its noun: `1 file`, `2 files`.
    ///
    /// - Parameter many: the plural; nil: the noun and an s.
    package static func count(_ number: Int, _ one: String, _ many: String? = nil) -> String {
        "\(number) \(number == 1 ? one : many ?? one + "s")"
    }

    /// `bytes` in the largest unit that leaves at least 1: `1536` is `1.5 KiB`.
    package static func size(_ bytes: Int) -> String {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        guard bytes >= 1024 else { return "\(bytes) B" }
        let unit = min(units.count, (63 - bytes.leadingZeroBitCount) / 10)
        let whole = bytes >> (unit * 10)
        let tenths = (bytes >> (unit * 10 - 10) & 1023) * 10 / 1024
        return tenths == 0 ? "\(whole) \(units[unit - 1])" : "\(whole).\(tenths) \(units[unit - 1])"
    }

    /// The percentage that `part` is of `whole`, rounded down: 100 % means all of it.
    package static func percent(_ part: Int, of whole: Int) -> String {
        if part >= whole { return "100 %" }
        return "\(Int(min(99, max(0, Double(part) / Double(whole) * 100)))) %"
    }

    /// `1d 2h`, `3h 4m`, `5m 6s` or `7s`.
    package static func duration(seconds: Int) -> String {
        switch seconds {
        case 86_400...: "\(seconds / 86_400)d \(seconds % 86_400 / 3600)h"
        case 3600...: "\(seconds / 3600)h \(seconds % 3600 / 60)m"
        case 60...: "\(seconds / 60)m \(seconds % 60)s"
        default: "\(seconds)s"
        }
    }
}
