import CLinux
import Glibc
import HSMCore
import HSMSystem
import Logging
import Synchronization
import Testing

@testable import HSMStore

/// A lower directory with a store, an engine and a remote tier, on the real file system; ``remove()`` takes it away.
///
/// Nothing is committed but by `commit()`, `sync()` or `drain()`, so that a test can stop at any moment; ``restart(_:)``
/// is then what a killed daemon and a new one are.
final class StoreFixture {
    static let granule = 4096
    static let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    /// The lower directory.
    let path: String
    /// Where its files are.
    var tree: String { "\(path)/.passhsm/tree" }
    let source = PatternSource()
    let engine: FillEngine
    private(set) var store: Store
    private let isPrompt: Bool

    /// - Parameters:
    ///   - isPrompt: commits come by themselves, as in the daemon.
    ///   - folder: an existing directory to be used instead of a new one.
    init(isPrompt: Bool = false, in folder: String? = nil) throws {
        guard geteuid() == 0 else { throw StoreError("the store's tests want root") }
        var name = Array("/var/tmp/passhsm-test.XXXXXX".utf8CString)
        if let folder {
            path = folder
        } else {
            try #require(mkdtemp(&name) != nil)
            path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        var configuration = FillEngine.Configuration()
        configuration.readAhead = 0
        configuration.retries.firstPause = .milliseconds(1)
        engine = FillEngine(
            source: source, configuration: configuration, pool: BlockingPool(name: "test", limit: 4))
        self.isPrompt = isPrompt
        store = try Self.open(path, isPrompt: isPrompt)
    }

    func remove() { system("rm -rf \(path)") }

    private static func open(_ path: String, isPrompt: Bool) throws -> Store {
        let end = ContinuousClock.now + .seconds(10)
        while true {
            do throws(StoreError) {
                let committer = isPrompt ? Committer() : Committer(delay: 100_000)
                return try Store.open(
                    path.utf8CString.map { $0 }, create: true, purpose: "testing", log: log, committer: committer)
            } catch {
                // The last fetch of before may still hold it, and a child of another test from fork to exec.
                guard error.description.contains("in use"), ContinuousClock.now < end else { throw error }
                usleep(1000)
            }
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

    static let modified = RemoteEntry.Time(seconds: 1_000_000_000, nanoseconds: 123_456_789)

    /// Makes a file of `size` bytes of which nothing is present.
    @discardableResult
    func stub(
        _ name: String = "file", size: Int, key: [UInt8]? = nil, state: Record.State = .offline,
        granuleSize: Int = StoreFixture.granule, digest: RemoteDigest? = nil
    ) throws -> Record {
        let file = try lower(name, O_RDWR | O_CREAT | O_TRUNC)
        try file.truncate(to: size)
        let object = RemoteObject(
            key: RemoteKey(key ?? Array(name.utf8)), version: RemoteVersion(Array("v1".utf8)), size: size,
            digest: digest)
        let record = Record(
            state: state, object: object, modified: Self.modified, identity: try FileHandle(of: file),
            granuleSize: granuleSize)
        try store.write(record, to: file)
        let time = timespec(tv_sec: Self.modified.seconds, tv_nsec: Self.modified.nanoseconds)
        try file.setTimes(access: FileTime.omit, modification: time)
        return record
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

/// A remote tier in which every object has the same endless content, without zeros.
final class PatternSource: RemoteStore {
    let location = "pattern:"
    let fetchUnit = 4 * StoreFixture.granule
    /// Granules' worth of bytes that were asked for.
    let asked = Mutex<[Range<Int>]>([])
    let failure = Mutex<FillError?>(nil)

    static func byte(at offset: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: (offset &* 7 &+ offset >> 12 &* 13) % 255 + 1)
    }
    static func bytes(_ range: Range<Int>) -> [UInt8] { range.map(byte(at:)) }

    func read(
        _ object: RemoteObject, range: Range<Int>, deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        asked.withLock { $0.append(range) }
        if let failure = failure.withLock({ $0 }) { throw failure }
        var refusal: FillError?
        Self.bytes(range).withUnsafeBytes { bytes in
            do throws(FillError) { try deliver(bytes) } catch { refusal = error }
        }
        if let refusal { throw refusal }
    }

    func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        throw FillError(.io, .remoteGone, "nothing is known of \(key)")
    }

    func list(_ body: (RemoteEvent) throws -> Void) async throws {}
}

extension Descriptor {
    /// The bytes of `range`, fewer at the end of the file.
    func bytes(_ range: Range<Int>) throws -> [UInt8] {
        var result = [UInt8](repeating: 0, count: range.count)
        var failure: Errno?
        var count = 0
        result.withUnsafeMutableBytes { buffer in
            do throws(Errno) { count = try read(into: buffer, at: range.lowerBound) } catch { failure = error }
        }
        if let failure { throw failure }
        return Array(result.prefix(count))
    }

    func put(_ bytes: [UInt8], at offset: Int) throws {
        // Swift 6.3.1 crashes on a closure with a typed error for a function that throws any.
        var failure: Errno?
        bytes.withUnsafeBytes { buffer in
            do throws(Errno) { try write(buffer, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}

/// Polls until `condition` holds.
func until(_ what: String, _ condition: () throws -> Bool) throws {
    let end = ContinuousClock.now + .seconds(20)
    while try !condition() {
        if ContinuousClock.now > end { throw StoreError("not within twenty seconds: \(what)") }
        usleep(1000)
    }
}
