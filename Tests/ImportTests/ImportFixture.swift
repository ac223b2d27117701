import CLinux
import Glibc
import HSMCore
import HSMRemotes
import HSMStore
import HSMSystem
import Logging
import StoreTestSupport
import TestSupport
import Testing

@testable import HSMImport

/// A new directory for one test with a `source` in it, and the lower directory `dir` to be made, whose files `lower` leads
/// to; ``remove()`` takes all of it away.
struct ImportFixture: Sendable {
    private let directory: TemporaryDirectory
    var path: String { directory.path }
    var options = Importer.Options()
    static let log = Logger.silent

    init(_ setUp: String = "true") throws {
        directory = try TemporaryDirectory()
        shell("ln -s dir/.passhsm/tree lower; mkdir source; cd source; \(setUp)")
    }

    func remove() { directory.remove() }

    /// Runs lines of shell in the directory.
    func shell(_ lines: String, sourceLocation: SourceLocation = #_sourceLocation) {
        directory.shell(lines, sourceLocation: sourceLocation)
    }

    @discardableResult
    func run(from source: String = "source", progress: @escaping (ImportProgress) -> Void = { _ in }) throws
        -> ImportSummary
    {
        let importer = try importer(from: source)
        return try untilFree { try importer.run(progress: progress) }
    }

    func importer(from source: String = "source", into lower: String = "dir") throws -> Importer {
        let location = try RemoteLocation("\(path)/\(source)")
        return Importer(
            location, try location.open(), into: Array("\(path)/\(lower)".utf8), options: options,
            log: Self.log)
    }

    /// Imports, and expects an error with `text` in it before anything is done.
    func refuses(
        _ text: String, from source: String = "source", into lower: String = "dir",
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        do {
            _ = try importer(from: source, into: lower).run { _ in }
            #expect(Bool(false), "imported", sourceLocation: sourceLocation)
        } catch {
            #expect("\(error)".contains(text), "\(error)", sourceLocation: sourceLocation)
        }
    }

    func lower(_ path: String) -> String { "\(self.path)/lower/\(path)" }

    func store() throws -> Store {
        try Store.inspect("\(path)/dir".utf8CString.map { $0 }, log: Self.log)
    }

    func record(_ name: String) throws -> Record? {
        try store().record(of: Descriptor.open(lower(name), PASSHSM_O_PATH | O_NOFOLLOW))
    }

    func change(_ name: String, _ body: (inout Record) -> Void) throws {
        var record = try #require(try record(name))
        body(&record)
        try store().write(record, to: Descriptor.open(lower(name), PASSHSM_O_PATH))
    }

    /// Where the first data of a file is; nil for a file that is all hole.
    func firstData(_ name: String) throws -> Int? { try Descriptor.open(lower(name), O_RDONLY).seekData(from: 0) }

    /// Expects that `stat`, with this format, says the same of both trees.
    func expectSame(_ format: String, _ names: String, sourceLocation: SourceLocation = #_sourceLocation) {
        shell(
            """
            a=$(cd source && stat -c '\(format)' \(names)); b=$(cd lower && stat -c '\(format)' \(names))
            test "$a" = "$b" || { echo "$a"; echo "$b"; exit 1; }
            """, sourceLocation: sourceLocation)
    }
}
