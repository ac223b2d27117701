import Glibc
import HSMSystem
import Testing

/// A new directory for one test; ``remove()`` takes it away with everything in it.
package struct TemporaryDirectory: Sendable {
    package let path: String

    /// - Parameter parent: by default on the disk, since a tmpfs lacks some of what the store needs.
    package init(in parent: String = "/var/tmp") throws(Errno) {
        var name = Array("\(parent)/passhsm-test.XXXXXX".utf8CString)
        guard mkdtemp(&name) != nil else { throw Errno(rawValue: errno) }
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    package func remove() { system("rm -rf \(path)") }

    /// Runs lines of shell in the directory, which have to succeed.
    package func shell(_ lines: String, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(system("cd \(path) || exit 1\n\(lines)") == 0, "\(lines)", sourceLocation: sourceLocation)
    }
}
