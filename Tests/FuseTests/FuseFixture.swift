import CFuse
import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem
import Logging
import TestSupport
import Testing

@testable import HSMFuse

/// A file system over a lower directory on disk, connected to a kernel that a test plays.
final class FuseFixture {
    static let granule = 4096
    static let size = 10 * granule
    let directory: TemporaryDirectory
    let store: Store
    let remote = FakeRemote(fetchUnit: 4 * FuseFixture.granule)
    let engine: FillEngine
    let fileSystem: FileSystem
    let kernel: ScriptedKernel
    let connection: Connection
    private let pool = BlockingPool(name: "test", limit: 4)

    /// - Parameters:
    ///   - passthrough: whether the kernel takes files for passthrough.
    ///   - files: the names of offline files of ``size`` bytes, with ``Pattern``'s content.
    init(passthrough: Bool = true, files: [String] = ["file"], _ change: (inout FuseMount.Options) -> Void = { _ in })
        throws
    {
        directory = try TemporaryDirectory()
        let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        store = try Store.open(
            directory.path.utf8CString.map { $0 }, create: true, purpose: "testing", log: log)
        engine = FillEngine(source: remote, configuration: .prompt, pool: pool)
        var options = FuseMount.Options()
        options.describe = { Array("\($0.record?.state as Any)".utf8) }
        change(&options)
        fileSystem = try FileSystem(store: store, engine: engine, options: options, pool: pool, log: log)
        kernel = ScriptedKernel(backingError: passthrough ? nil : EPERM)
        connection = Connection(kernel, fileSystem.wishes, fileSystem)
        fileSystem.known.invalidation.withLock { [connection] in
            $0 = .init { [weak connection] in connection?.invalidate($0, $1) }
        }
        // This thread is one that answers requests.
        CallerIdentity.prepareProcess()
        connection.prepareThread()
        for name in files { try makeOffline(name) }
        try fileSystem.locks.start()
        _ = try initialize()
    }

    func remove() {
        engine.shutDown()
        fileSystem.locks.stop()
        store.drain()
        directory.remove()
    }

    /// The lower directory's files.
    func lower(_ name: String) -> String { "\(directory.path)/.passhsm/tree/\(name)" }

    func makeOffline(_ name: String, size: Int = FuseFixture.size, granule: Int = FuseFixture.granule) throws {
        let file = try Descriptor.open(lower(name), O_RDWR | O_CREAT, mode: 0o644)
        try file.truncate(to: size)
        let object = RemoteObject(key: RemoteKey(Array(name.utf8)), version: RemoteVersion([0]), size: size)
        let record = Record(
            state: .offline, object: object, modified: FakeRemote.modified, identity: try FileHandle(of: file),
            granuleSize: granule)
        try store.write(record, to: file)
        let time = timespec(tv_sec: FakeRemote.modified.seconds, tv_nsec: FakeRemote.modified.nanoseconds)
        try file.setTimes(access: FileTime.omit, modification: time)
    }

    // MARK: Requests

    /// What Linux 6.18 offers.
    static let offer: fuse_init_in = {
        var offer = fuse_init_in()
        (offer.major, offer.minor, offer.max_readahead) = (7, 45, 0x20000)
        (offer.flags, offer.flags2) = (0x73ff_fffb, 0x5fd)
        return offer
    }()

    func initialize(_ offer: fuse_init_in = FuseFixture.offer) throws -> fuse_init_out {
        try call(FUSE_INIT, 0, bytes(of: offer)).value(fuse_init_out.self)
    }

    func send(_ opcode: fuse_opcode, _ node: UInt64, _ body: [UInt8] = [], as caller: Caller = .test) -> UInt64 {
        kernel.send(opcode, node, body, as: caller, to: connection)
    }

    func call(
        _ opcode: fuse_opcode, _ node: UInt64, _ body: [UInt8] = [], as caller: Caller = .test
    ) throws -> ScriptedKernel.Answer {
        try kernel.wait(for: send(opcode, node, body, as: caller))
    }

    /// Looks `name` up and returns the whole entry; throws the errno of a refusal.
    func lookup(_ name: String, in parent: UInt64 = 1) throws -> fuse_entry_out {
        let answer = try call(FUSE_LOOKUP, parent, text(name))
        if answer.code != 0 { throw Errno(rawValue: answer.code) }
        return try answer.value(fuse_entry_out.self)
    }

    func attributes(_ node: UInt64) throws -> fuse_attr {
        try call(FUSE_GETATTR, node, bytes(of: fuse_getattr_in())).value(fuse_attr_out.self).attr
    }

    /// Opens an inode; throws the errno of a refusal.
    func open(_ node: UInt64, _ flags: Int32 = O_RDONLY) throws -> passhsm_open_out {
        let answer = try call(FUSE_OPEN, node, openBody(flags))
        if answer.code != 0 { throw Errno(rawValue: answer.code) }
        return try answer.value(passhsm_open_out.self)
    }

    func openBody(_ flags: Int32, dropsSetIDs: Bool = false) -> [UInt8] {
        bytes(of: fuse_open_in(flags: UInt32(bitPattern: flags), open_flags: dropsSetIDs ? 1 : 0))
    }

    func close(_ node: UInt64, _ handle: UInt64) throws {
        var body = fuse_release_in()
        body.fh = handle
        let answer = try call(FUSE_RELEASE, node, bytes(of: body))
        if answer.code != 0 { throw Errno(rawValue: answer.code) }
    }

    func readBody(_ handle: UInt64, _ range: Range<Int>) -> [UInt8] {
        var body = fuse_read_in()
        (body.fh, body.offset, body.size) = (handle, UInt64(range.lowerBound), UInt32(range.count))
        return bytes(of: body)
    }

    func read(_ node: UInt64, _ handle: UInt64, _ range: Range<Int>) throws -> [UInt8] {
        let answer = try call(FUSE_READ, node, readBody(handle, range))
        if answer.code != 0 { throw Errno(rawValue: answer.code) }
        return answer.payload
    }

    func writeBody(_ handle: UInt64, _ content: [UInt8], at offset: Int, flags: UInt32 = 0) -> [UInt8] {
        var body = fuse_write_in()
        (body.fh, body.offset, body.size) = (handle, UInt64(offset), UInt32(content.count))
        body.write_flags = flags
        return bytes(of: body) + content
    }

    func write(_ node: UInt64, _ handle: UInt64, _ content: [UInt8], at offset: Int) throws -> Int {
        let answer = try call(FUSE_WRITE, node, writeBody(handle, content, at: offset))
        if answer.code != 0 { throw Errno(rawValue: answer.code) }
        return Int(try answer.value(fuse_write_out.self).size)
    }

    func record(_ name: String) throws -> Record? {
        try store.record(of: Descriptor.open(lower(name), O_RDONLY))
    }
}

/// Runs `body` with a file system, which is removed afterwards, and checks that no request was answered twice.
func withFuse(
    passthrough: Bool = true, files: [String] = ["file"], _ change: (inout FuseMount.Options) -> Void = { _ in },
    _ body: (FuseFixture) throws -> Void
) throws {
    let fixture = try FuseFixture(passthrough: passthrough, files: files, change)
    defer { fixture.remove() }
    try body(fixture)
    #expect(fixture.kernel.answeredTwice.isEmpty, "requests were answered twice")
}

/// The same for a test that waits without a thread.
func withFuse(
    passthrough: Bool = true, files: [String] = ["file"], _ change: (inout FuseMount.Options) -> Void = { _ in },
    _ body: (FuseFixture) async throws -> Void
) async throws {
    let fixture = try FuseFixture(passthrough: passthrough, files: files, change)
    defer { fixture.remove() }
    try await body(fixture)
    #expect(fixture.kernel.answeredTwice.isEmpty, "requests were answered twice")
}
