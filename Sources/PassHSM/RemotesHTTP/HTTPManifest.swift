import FoundationEssentials
import HSMCore
import HSMRemotes

/// A list of the objects of a source: a line of JSON for each, such as
///
///     {"path": "a/b.bin", "size": 12, "mtime": 1700000000.5, "mode": "0644", "sha256": "…64 digits…"}
///
/// `mtime` (seconds since 1970), `mode` (octal) and `sha256` may be left out; other names are passed over. The order is any.
package struct HTTPManifest: Sendable {
    package struct Entry: Hashable, Sendable {
        /// Below the top of the source: names joined by `/`, none of which is empty, `.` or `..`.
        package let path: [UInt8]
        package let size: Int
        package let modified: RemoteEntry.Time?
        package let permissions: UInt32?
        package let digest: RemoteDigest?
        /// Where it stands in the manifest, from 1 on.
        package let line: Int

        package var name: [UInt8] { Array(path.split(separator: 0x2f).last ?? []) }
    }

    /// In the order of their paths' bytes.
    package let entries: [Entry]

    /// - Throws: for a line that is no such object, a path that leads out of the source, and one that is there twice or
    ///   is also a directory: one line, with the number of the manifest's line.
    package init(_ text: [UInt8]) throws(LocationError) {
        var entries: [Entry] = []
        for (index, line) in text.split(separator: 0x0a, omittingEmptySubsequences: false).enumerated() {
            let isBlank = line.allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0d }
            if !isBlank { entries.append(try Self.entry(Array(line), index + 1)) }
        }
        // All paths below a directory follow one another in this order, right behind those that only begin like it.
        entries.sort { $0.path.lexicographicallyPrecedes($1.path) }
        var files = PathPrefixes()
        for entry in entries {
            guard let other = files.add(entry.path) else { continue }
            let name = RemoteKey(entry.path)
            throw other == entry.path.count
                ? Self.error(entry.line, "\(name) is there twice")
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
                "not an object with a “path” (text) and a “size” (bytes), nor with “mtime” (seconds), “mode” (text)")
        }
        let path = Array(line.path.utf8)
        let names = path.split(separator: 0x2f, omittingEmptySubsequences: false)
        if names.contains(where: { $0.isEmpty || $0 == [0x2e] || $0 == [0x2e, 0x2e] }) || path.contains(0) {
            throw Self.error(number, "the path “\(line.path)” is not one below the source")
        }
        if names[0] == Array(".passhsm".utf8)[...] { throw Self.error(number, "the name .passhsm is PassHSM's own") }
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
    /// From seconds since 1970; nil for what is no time.
    package init?(fractional value: Double) {
        guard value.isFinite, abs(value) < 1e12 else { return nil }
        let whole = value.rounded(.down)
        // A double has some tenths of a microsecond for times of today: more digits would be noise.
        let microseconds = ((value - whole) * 1e6).rounded()
        let carry = microseconds >= 1e6
        self.init(seconds: Int(whole) + (carry ? 1 : 0), nanoseconds: carry ? 0 : Int(microseconds) * 1000)
    }
}
