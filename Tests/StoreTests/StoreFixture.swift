import CLinux
import Glibc
import HSMCore
import HSMSystem
import Logging
import StoreTestSupport
import TestSupport
import Testing

@testable import HSMStore

/// A lower directory with a store, an engine and a remote tier, on the real file system; ``remove()`` takes it away.
///
/// Nothing is committed but by `commit()`, `sync()` or `drain()`, so that a test can stop at any moment; ``restart(_:)``
/// is then what a killed daemon and a new one are.
final class StoreFixture {
    static let granule = 4096
    static let log = Logger.silent
    /// The lower directory.
    let path: String
    /// Where its files are.
    var tree: String { "\(path)/.passhsm/tree" }
    let source = FakeRemote(fetchUnit: 4 * StoreFixture.granule)
    let engine: FillEngine
    private(set) var store: Store
    private let isPrompt: Bool

    /// - Parameters:
    ///   - isPrompt: commits come by themselves, as in the daemon but sooner.
    ///   - folder: an existing directory to be used instead of a new one.
    init(isPrompt: Bool = false, in folder: String? = nil) throws {
        guard geteuid() == 0 else { throw StoreError("the store's tests want root") }
        path = try folder ?? TemporaryDirectory().path
        engine = FillEngine(source: source, configuration: .prompt, pool: BlockingPool(name: "test", limit: 4))
        self.isPrompt = isPrompt
        store = try Self.open(path, isPrompt: isPrompt)
    }

    func remove() { system("rm -rf \(path)") }

    private static func open(_ path: String, isPrompt: Bool) throws -> Store {
        try untilFree {
            let committer = Committer(delay: isPrompt ? 0.01 : 100_000)
            return try Store.open(
                path.utf8CString.map { $0 }, create: true, purpose: "testing", log: log, committer: committer)
        }
    }

    /// Drops everything that is not on disk, and opens the store again. The caller has let go of every file.
    func restart() throws {
        // The lock goes with the last owner.
        try close()
        store = try Self.open(path, isPrompt: isPrompt)
    }

    /// Gives the lock back: the store is open for looking only. The caller has let go of every file.
    func close() throws {
        store.committer.abandon()
        store = try Store.inspect(path.utf8CString.map { $0 }, log: Self.log)
    }

    // MARK: Files

    func lower(_ name: String = "file", _ flags: Int32 = O_RDWR) throws -> Descriptor {
        try Descriptor.open("\(tree)/\(name)", flags, mode: 0o644)
    }

    static let modified = FakeRemote.modified

    /// Makes a file of `size` bytes of which nothing is present.
    @discardableResult
    func stub(
        _ name: String = "file", size: Int, key: [UInt8]? = nil, state: Record.State = .offline,
        granuleSize: Int = StoreFixture.granule, digest: RemoteDigest? = nil
    ) throws -> Record {
        let object = RemoteObject(
            key: RemoteKey(key ?? Array(name.utf8)), version: RemoteVersion(Array("v1".utf8)), size: size,
            digest: digest)
        return try store.makeFile("\(tree)/\(name)", state, object, granuleSize: granuleSize)
    }

    /// Fills and commits these granules of the file, lets go of it, and opens the store again.
    func fillBeforeRestart(granules: Range<Int>) throws {
        do {
            let file = try use()
            try fill(granules: granules, of: file)
            try file.stored.commit()
        }
        try restart()
    }

    func use(_ name: String = "file") throws -> IncompleteFile {
        try #require(try store.use(lower(name), engine: engine))
    }

    func record(_ name: String = "file") throws -> Record { try #require(try store.record(of: lower(name, O_RDONLY))) }

    func change(_ name: String = "file", _ body: (inout Record) -> Void) throws {
        var record = try record(name)
        body(&record)
        try store.write(record, to: lower(name))
    }

    /// The path of the file's residency map.
    func map(_ name: String = "file") throws -> String {
        "\(path)/.passhsm/partial/\(try FileHandle(of: lower(name, O_RDONLY)).name)"
    }

    func hasMap(_ name: String = "file") throws -> Bool { access(try map(name), F_OK) == 0 }

    /// What the residency map says of each granule up to the last that it tells of; read by FORMAT.md, not by the store.
    func presences(_ name: String = "file") throws -> [UInt8] {
        let file = try Descriptor.open(map(name), O_RDONLY)
        let content = try file.bytes(0..<Int(file.stat().st_size))
        var result: [UInt8] = []
        for page in stride(from: 4096, to: content.count, by: 4096) {
            result += (0..<960).map { content[page + 16 + $0 / 4] >> ($0 % 4 * 2) & 3 }
        }
        return Array(result.prefix((result.lastIndex { $0 != 0 } ?? -1) + 1))
    }

    /// Changes a byte of the residency map.
    func flip(_ offset: Int, ofMapOf name: String = "file") throws {
        let file = try Descriptor.open(map(name), O_RDWR)
        try file.put([try #require(file.bytes(offset..<offset + 1).first) ^ 0x10], at: offset)
    }

    /// As if the map had been written before the machine was started anew.
    func changeSession(ofMapOf name: String = "file") throws {
        let file = try Descriptor.open(map(name), O_RDWR)
        var header = try file.bytes(0..<4096)
        header[20] ^= 0xff
        withUnsafeBytes(of: CRC32C.of(Array(header[4...])).littleEndian) { header.replaceSubrange(0..<4, with: $0) }
        try file.put(header, at: 0)
    }
}
