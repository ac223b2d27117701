import Glibc
import HSMControl

/// What commands print on stdout.
enum Output {
    static func lines(_ lines: [String]) {
        for line in lines { print(line) }
    }

    /// JSON of several lines.
    static func json(_ value: some Encodable) throws {
        print(String(decoding: try ControlJSON.encode(value, pretty: true), as: UTF8.self))
    }
}
