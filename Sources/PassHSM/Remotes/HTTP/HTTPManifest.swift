import FoundationEssentials
import HSMCore

/// A list of the objects of a source, with a line of JSON for each, such as
///
///     {"path": "a/b.bin", "size": 12, "mtime": 1700000000.5, "mode": "0644", "sha256": "…64 digits…"}
///
/// `mtime` (seconds since 1970), `mode` (octal) and `sha256` are optional. Other members are ignored. Lines may come in
/// any order.
package struct HTTPManifest: Sendable {
    /// One object of the manifest.
    package struct Entry: Hashable, Sendable {
        /// The path below the top of the source: names joined by `/`, none of which is empty, `.` or `..`.
        package let path: [UInt8]
        package let size: Int
        package let modified: RemoteEntry.Time?
        package let permissions: UInt32?
        package let digest: RemoteDigest?
        /// The number of its line in the manifest, from 1 on.
        package let line: Int

        package var name: [UInt8] { Array(path.split(separator: 0x2f).last ?? []) }
    }

    /// The entries in the order of their paths' bytes.
    package let entries: [Entry]

    /// Parses a manifest.
    ///
    /// - Throws: one line of text, with the number of the manifest's line: for a line that is not such an object, a
    ///   path that leads out of the source, a path that occurs twice, and a path that is also a directory.
    package init(_ text: [UInt8]) throws(LocationError) {
        var entries: [Entry] = []
        for (index, line) in text.split(separator: 0x0a, omittingEmptySubsequences: false).enumerated() {
            let isBlank = line.allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0d }
            if !isBlank { entries.append(try Self.entry(Array(line), index + 1)) }
        }
        // In this order all paths below a directory are consecutive, after paths that only begin with the same bytes.
        entries.sort { $0.path.lexicographicallyPrecedes($1.path) }
        var files = PathPrefixes()
        for entry in entries {
            guard let other = files.add(entry.path) else { continue }
            let name = RemoteKey(entry.path)
            throw other == entry.path.count
                ? Self.error(entry.line, "\(name) occurs twice")
                : Self.error(entry.line, "\(name) is below a file of the manifest")
        }
        self.entries = entries
    }

    private struct Line: Decodable {
        let path: String
        let size: Int
        let mtime: Double?
        let mode: String?
        let sha256: String?
    }

    private static func entry(_ text: [UInt8], _ number: Int) throws(LocationError) -> Entry {
        let line: Line
        do { line = try JSONDecoder().decode(Line.self, from: Data(text)) } catch {
            throw Self.error(
                number,
                "not a JSON object with “path” (text), “size” (bytes), and optionally “mtime” (seconds), “mode” (text)")
        }
        let path = Array(line.path.utf8)
        let names = path.split(separator: 0x2f, omittingEmptySubsequences: false)
        if names.contains(where: { $0.isEmpty || $0 == [0x2e] || $0 == [0x2e, 0x2e] }) || path.contains(0) {
            throw Self.error(number, "the path “\(line.path)” does not lead below the source")
        }
        if names[0] == Array(".passhsm".utf8)[...] {
            throw Self.error(number, "the name .passhsm is reserved for PassHSM")
        }
        guard line.size >= 0 else { throw Self.error(number, "the size is negative") }
        var digest: RemoteDigest?
        if let text = line.sha256 {
            digest = RemoteDigest(.sha256, hexadecimal: Array(text.utf8))
            if digest == nil { throw Self.error(number, "“sha256” is not 64 hexadecimal digits") }
        }
        var permissions: UInt32?
        if let text = line.mode {
            permissions = UInt32(digits: text, radix: 8)
            guard let permissions, permissions <= 0o7777 else { throw Self.error(number, "“mode” is not octal digits") }
        }
        let modified = line.mtime.flatMap { RemoteEntry.Time(fractional: $0) }
        if line.mtime != nil && modified == nil { throw Self.error(number, "“mtime” is not a time") }
        return Entry(
            path: path, size: line.size, modified: modified, permissions: permissions, digest: digest, line: number)
    }

    private static func error(_ line: Int, _ cause: String) -> LocationError {
        LocationError("the manifest's line \(line): \(cause)")
    }
}

extension RemoteEntry.Time {
    /// From seconds since 1970; nil for a number that is not a time.
    package init?(fractional value: Double) {
        guard value.isFinite, abs(value) < 1e12 else { return nil }
        let whole = value.rounded(.down)
        // A double is exact to some tenths of a microsecond for current times; further digits would be noise.
        let microseconds = ((value - whole) * 1e6).rounded()
        let carry = microseconds >= 1e6
        self.init(seconds: Int(whole) + (carry ? 1 : 0), nanoseconds: carry ? 0 : Int(microseconds) * 1000)
    }
}
