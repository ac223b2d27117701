import CFuse
import Glibc
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse
@testable import HSMFuseDoor

/// The bytes that the kernel gets, as its protocol lays them out (linux/fuse.h).
@Suite struct ReplyTests {
    private let kernel = ScriptedKernel()
    private let connection: Connection

    /// Answers nothing.
    private struct Nobody: RequestHandler {
        func prepareThread() {}
        func connected(_ transport: any Transport) {}
        func forget(_ node: UInt64, _ count: UInt64) {}
        func handle(_ request: Request, _ reply: consuming Reply) {}
    }

    init() { connection = Connection(kernel, Negotiation.Wishes(), Nobody()) }

    private func reply() -> Reply { Reply(connection, 7, .test) }
    private var answer: ScriptedKernel.Answer? { kernel.answer(to: 7) }

    private func words(_ words: UInt32...) -> [UInt8] { words.flatMap { bytes(of: $0) } }
    private func longs(_ longs: UInt64...) -> [UInt8] { longs.flatMap { bytes(of: $0) } }

    private static let status: stat = {
        var status = stat()
        (status.st_ino, status.st_size, status.st_blocks) = (0x1122_3344_5566, 5000, 10)
        (status.st_mode, status.st_nlink, status.st_uid, status.st_gid) = (S_IFREG | 0o640, 3, 17, 18)
        (status.st_rdev, status.st_blksize) = (0x103, 4096)
        status.st_atim = timespec(tv_sec: 100, tv_nsec: 1)
        status.st_mtim = timespec(tv_sec: -200, tv_nsec: 2)
        status.st_ctim = timespec(tv_sec: 300, tv_nsec: 999_999_999)
        return status
    }()

    /// struct fuse_attr of ``status``.
    private var attributes: [UInt8] {
        longs(0x1122_3344_5566, 5000, 10, 100, UInt64(bitPattern: -200), 300)
            + words(1, 2, 999_999_999, 0o100640, 3, 17, 18, 0x103, 4096, 0)
    }

    @Test(
        "An errno that the kernel would refuse is EIO: the caller would wait for good", arguments: [511, 512, 524, -1])
    func errno(code: Int32) {
        reply().error(code)
        #expect(answer?.code == (code == 511 ? 511 : EIO))
    }

    @Test("A reply that nobody gives is EIO")
    func dropped() throws {
        do { _ = reply() }
        #expect(answer?.code == EIO && answer?.payload == [])
        // So it is for a request whose handler forgets it, and for one that waits.
        #expect(try kernel.wait(for: kernel.send(FUSE_GETATTR, 1, [], to: connection)).code == EIO)
        let other = Reply(connection, 9, .test)
        do {
            let pending = PendingReply(other)
            pending.onInterrupt {}
            #expect(pending.caller != nil && !pending.isInterrupted)
        }
        #expect(kernel.answer(to: 9)?.code == EIO)
    }

    @Test("A reply that waits is taken once, and knows of its interrupt")
    func pending() {
        let pending = PendingReply(reply())
        let flag = Flag()
        pending.onInterrupt { flag.set() }
        connection.interrupts.interrupt(7)
        #expect(flag.isSet && pending.isInterrupted)
        pending.take()?.error(EINTR)
        #expect(answer?.code == EINTR)
        #expect(pending.caller == nil && !pending.isInterrupted)
        pending.onInterrupt { Issue.record("called after the end") }
        connection.interrupts.interrupt(7)
        switch pending.take() {
        case .some(let reply):
            reply.done()
            Issue.record("taken twice")
        case .none: break
        }
        #expect(kernel.answeredTwice.isEmpty)
    }

    @Test("An error has no payload")
    func error() {
        reply().error(Errno(rawValue: ENOSPC))
        #expect(answer?.code == ENOSPC && answer?.payload == [])
    }

    @Test("Success without a value has no payload either")
    func done() {
        reply().result { () throws(Errno) in }
        #expect(answer?.code == 0 && answer?.payload == [])
    }

    @Test("An operation that throws is answered with its errno")
    func thrown() {
        reply().result { () throws(Errno) in throw Errno(rawValue: EACCES) }
        #expect(answer?.code == EACCES)
    }

    @Test("An entry")
    func entry() {
        var entry = Entry()
        (entry.node, entry.generation, entry.attributes) = (0x0102_0304_0506_0708, 9, Self.status)
        (entry.entryTimeout, entry.attributeTimeout) = (1.5, 86400)
        let isTaken = reply().entry(entry)
        #expect(isTaken)
        #expect(
            answer?.payload == longs(0x0102_0304_0506_0708, 9, 1, 86400) + words(500_000_000, 0) + attributes)
        #expect(answer?.payload.count == 128)
        #expect(answer?.payload.prefix(8) == [8, 7, 6, 5, 4, 3, 2, 1])
    }

    @Test("Attributes")
    func attr() {
        reply().attributes(Self.status, timeout: 0.25)
        #expect(answer?.payload == longs(0) + words(250_000_000, 0) + attributes)
        #expect(answer?.payload.count == 104)
    }

    @Test("Attributes with a time of birth", arguments: [true, false])
    func statx(hasBirth: Bool) {
        let birth = hasBirth ? timespec(tv_sec: 50, tv_nsec: 5) : nil
        reply().attributes(Self.status, birth: birth, timeout: 2)
        let head = longs(2) + words(0, 0) + longs(0, 0)
        let mask: UInt32 = hasBirth ? 0xfff : 0x7ff
        var body = words(mask, 4096) + longs(0) + words(3, 17, 18, 0o100640)
        body += longs(0x1122_3344_5566, 5000, 10, 0)
        body += longs(100) + words(1, 0)
        body += hasBirth ? longs(50) + words(5, 0) : longs(0, 0)
        body += longs(300) + words(999_999_999, 0) + longs(UInt64(bitPattern: -200)) + words(2, 0)
        body += words(1, 3, 0, 0) + [UInt8](repeating: 0, count: 112)
        #expect(answer?.payload == head + body)
    }

    @Test("An open: passthrough, cached, and directories")
    func opened() {
        let cases: [(Opened.Access, [UInt8])] = [
            (.passthrough(backingID: 5), words(1 << 7 | 1 << 5, 5)), (.cached, words(2, 0)),
            (.directory(keepsListing: true), words(8 | 2, 0)), (.directory(keepsListing: false), words(0, 0)),
        ]
        for (number, (access, expected)) in cases.enumerated() {
            let unique = UInt64(number) + 20
            let isTaken = Reply(connection, unique, .test).open(Opened(handle: 0xabc, access: access))
            #expect(isTaken)
            #expect(kernel.answer(to: unique)?.payload == longs(0xabc) + expected)
        }
    }

    @Test("A file that was made, with its entry")
    func created() {
        var entry = Entry()
        entry.node = 5
        entry.attributes = Self.status
        let isTaken = reply().create(entry, Opened(handle: 3, access: .cached))
        #expect(isTaken)
        #expect(answer?.payload == longs(5, 0, 0, 0) + words(0, 0) + attributes + longs(3) + words(2, 0))
    }

    @Test("Counts and offsets")
    func counts() {
        reply().written(70_000)
        #expect(answer?.payload == words(70_000, 0))
        Reply(connection, 8, .test).offset(1 << 40)
        #expect(kernel.answer(to: 8)?.payload == longs(1 << 40))
        Reply(connection, 9, .test).attributeSize(12)
        #expect(kernel.answer(to: 9)?.payload == words(12, 0))
        Reply(connection, 10, .test).ioctl([1, 2, 3])
        #expect(kernel.answer(to: 10)?.payload == words(0, 0, 0, 0) + [1, 2, 3])
        Reply(connection, 11, .test).bytes([4, 5])
        #expect(kernel.answer(to: 11)?.payload == [4, 5])
    }

    @Test("The file system's statistics")
    func statistics() {
        var lower = statvfs()
        (lower.f_blocks, lower.f_bfree, lower.f_bavail, lower.f_files, lower.f_ffree) = (1, 2, 3, 4, 5)
        (lower.f_bsize, lower.f_frsize, lower.f_namemax) = (6, 7, 255)
        reply().fileSystem(lower)
        #expect(
            answer?.payload == longs(1, 2, 3, 4, 5) + words(6, 255, 7, 0) + [UInt8](repeating: 0, count: 24))
    }

    @Test("Notifications name an inode and its pages")
    func notifications() {
        connection.invalidate(5, .none)
        connection.invalidate(6, .all)
        connection.invalidate(7, .range(4096..<12_288))
        #expect(
            kernel.invalidations == [
                .init(node: 5, offset: -1, count: 0), .init(node: 6, offset: 0, count: 0),
                .init(node: 7, offset: 4096, count: 8192),
            ])
    }

    @Test("Requests are counted by their kind")
    func counters() {
        for opcode in [FUSE_LOOKUP, FUSE_LOOKUP, FUSE_GETATTR, fuse_opcode(4095)] {
            _ = kernel.send(opcode, 1, [], to: connection)
        }
        let snapshot = connection.counters.snapshot
        #expect(snapshot.map(\.name) == ["lookup", "getattr"] && snapshot.map(\.value) == [2, 1])
        #expect(kernel.answer(to: 8)?.code == ENOSYS)
    }

    @Test("DESTROY is answered, and a request shorter than its header is not")
    func others() throws {
        #expect(try kernel.wait(for: kernel.send(FUSE_DESTROY, 0, [], to: connection)).code == 0)
        [UInt8](repeating: 0, count: 39).withUnsafeBytes { connection.receive($0) }
        connection.prepareThread()
        #expect(connection.counters.snapshot.isEmpty)
    }
}
