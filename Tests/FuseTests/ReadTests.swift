import CFuse
import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem
import Synchronization
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct ReadTests {
    private static let granule = FuseFixture.granule
    private static let page = FileSystem.pageSize

    /// A file that is filled as it is read, and is open.
    private func withOpen(
        _ flags: Int32 = O_RDONLY, _ change: (inout FuseMount.Options) -> Void = { _ in },
        _ body: (FuseFixture, UInt64, UInt64) throws -> Void
    ) throws {
        try withFuse {
            $0.fill = .read
            change(&$0)
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let handle = try fuse.open(node, flags).fh
            try body(fuse, node, handle)
            try fuse.close(node, handle)
        }
    }

    @Test("A read fetches the granules that it touches, and no byte twice")
    func present() throws {
        try withOpen { fuse, node, handle throws in
            #expect(try fuse.read(node, handle, 5000..<5100) == Pattern.bytes(5000..<5100))
            #expect(fuse.remote.log.reads == [Self.granule..<2 * Self.granule])
            #expect(fuse.present(node) == [1..<2])
            #expect(try fuse.read(node, handle, 4096..<8192) == Pattern.bytes(4096..<8192))
            #expect(fuse.remote.log.reads.count == 1)
            #expect(try fuse.read(node, handle, 4000..<9000) == Pattern.bytes(4000..<9000))
            let again = fuse.remote.log.reads.dropFirst().sorted { $0.lowerBound < $1.lowerBound }
            #expect(again == [0..<Self.granule, 2 * Self.granule..<3 * Self.granule])
            // The lower file has the bytes, and nothing else.
            #expect(try fuse.lowerBytes("file", 0..<12_288) == Pattern.bytes(0..<12_288))
            #expect(try fuse.lowerBytes("file", 12_288..<16_384) == [UInt8](repeating: 0, count: 4096))
        }
    }

    @Test("A read at the end is short, and one behind it is empty")
    func end() throws {
        try withOpen { fuse, node, handle throws in
            let size = FuseFixture.size
            #expect(try fuse.read(node, handle, size - 10..<size + 100) == Pattern.bytes(size - 10..<size))
            #expect(try fuse.read(node, handle, size..<size + 100) == [])
            #expect(try fuse.read(node, handle, 1 << 40..<1 << 40 + 100) == [])
            #expect(fuse.remote.log.reads == [9 * Self.granule..<size])
        }
    }

    @Test("Reads of the same missing pages share one fetch")
    func joined() throws {
        try withOpen { fuse, node, handle throws in
            fuse.remote.hold(true)
            let body = fuse.readBody(handle, 0..<Self.granule)
            let reads = (0..<5).map { _ in fuse.send(FUSE_READ, node, body) }
            try until("the fetch") { fuse.remote.log.running == 1 }
            #expect(reads.allSatisfy { fuse.kernel.answer(to: $0) == nil })
            fuse.remote.hold(false)
            for read in reads {
                #expect(try fuse.kernel.wait(for: read).payload == Pattern.bytes(0..<Self.granule))
            }
            #expect(fuse.remote.log.reads == [0..<Self.granule])
        }
    }

    @Test("An interrupted read of a thread that is about to end is answered, others go on")
    func interrupted() throws {
        try withOpen { fuse, node, handle throws in
            fuse.remote.hold(true)
            // Nothing is known of the thread: it counts as one that is gone.
            let dead = fuse.send(FUSE_READ, node, fuse.readBody(handle, 0..<Self.granule), as: .stranger)
            let other = fuse.send(FUSE_READ, node, fuse.readBody(handle, 0..<Self.granule))
            for read in [dead, other] { _ = fuse.send(FUSE_INTERRUPT, 0, bytes(of: fuse_interrupt_in(unique: read))) }
            #expect(try fuse.kernel.wait(for: dead).code == EINTR)
            #expect(fuse.kernel.answer(to: other) == nil)
            fuse.remote.hold(false)
            #expect(try fuse.kernel.wait(for: other).payload == Pattern.bytes(0..<Self.granule))
            fuse.fileSystem.cancelDying()
            let left = fuse.fileSystem.interrupted.withLock { $0.count }
            #expect(left == 0)
        }
    }

    @Test("An INTERRUPT that comes before its read ends the read too")
    func interruptedEarly() throws {
        try withOpen { fuse, node, handle throws in
            fuse.remote.hold(true)
            let first = fuse.send(FUSE_GETATTR, 1, bytes(of: fuse_getattr_in()))
            _ = fuse.send(FUSE_INTERRUPT, 0, bytes(of: fuse_interrupt_in(unique: first + 4)))
            let read = fuse.send(FUSE_READ, node, fuse.readBody(handle, 0..<Self.granule), as: .stranger)
            #expect(read == first + 4)
            #expect(try fuse.kernel.wait(for: read).code == EINTR)
            fuse.remote.hold(false)
        }
    }

    @Test("FLUSH cancels the reads of its own handle, and no others")
    func flushed() throws {
        try withOpen { fuse, node, handle throws in
            fuse.remote.hold(true)
            let other = try fuse.open(node)
            let body = fuse.readBody(handle, 0..<Self.granule)
            let own = fuse.send(FUSE_READ, node, body)
            let others = fuse.send(FUSE_READ, node, fuse.readBody(other.fh, 0..<Self.granule))
            var flush = fuse_flush_in()
            flush.fh = handle
            #expect(try fuse.call(FUSE_FLUSH, node, bytes(of: flush)).code == 0)
            #expect(try fuse.kernel.wait(for: own).code == EINTR)
            #expect(fuse.kernel.answer(to: others) == nil)
            fuse.remote.hold(false)
            #expect(try fuse.kernel.wait(for: others).payload == Pattern.bytes(0..<Self.granule))
            try fuse.close(node, other.fh)
            flush.fh = 0xdead
            #expect(try fuse.call(FUSE_FLUSH, node, bytes(of: flush)).code == ESTALE)
        }
    }

    @Test("A file that is closed while a read waits is still answered")
    func closedMeanwhile() throws {
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let handle = try fuse.open(node).fh
            fuse.remote.hold(true)
            let read = fuse.send(FUSE_READ, node, fuse.readBody(handle, 0..<Self.granule))
            try fuse.close(node, handle)
            fuse.forget(node)
            fuse.remote.hold(false)
            #expect(try fuse.kernel.wait(for: read).payload == Pattern.bytes(0..<Self.granule))
            try until("the end of the use") {
                fuse.fileSystem.sweep()
                return fuse.fileSystem.inodes.count == 0
            }
        }
    }

    @Test("A fetch that breaks off is an error for the missing bytes only")
    func cutOff() throws {
        try withOpen { fuse, node, handle throws in
            let gone = FillError(.io, .remoteGone, "gone")
            fuse.remote.behaviour.withLock { $0.failure = (2 * Self.granule, gone) }
            #expect(throws: Errno(rawValue: EIO)) { try fuse.read(node, handle, 0..<4 * Self.granule) }
            #expect(try fuse.read(node, handle, 0..<2 * Self.granule) == Pattern.bytes(0..<2 * Self.granule))
            #expect(throws: Errno(rawValue: EIO)) { try fuse.read(node, handle, 2 * Self.granule..<3 * Self.granule) }
            fuse.remote.comeBack()
            #expect(try fuse.read(node, handle, 0..<FuseFixture.size) == Pattern.bytes(0..<FuseFixture.size))
        }
    }

    @Test(
        "A remote that sends less than it should, or more, never adds zeros or foreign bytes", arguments: [-100, 100])
    func wrongLength(extra: Int) throws {
        try withOpen { fuse, node, handle throws in
            fuse.remote.behaviour.withLock { ($0.missing, $0.extra) = (max(0, -extra), max(0, extra)) }
            if let bytes = try? fuse.read(node, handle, 0..<Self.granule) {
                #expect(bytes == Pattern.bytes(0..<Self.granule))
            } else {
                #expect(fuse.present(node).isEmpty)
            }
            fuse.remote.comeBack()
            #expect(try fuse.read(node, handle, 0..<FuseFixture.size) == Pattern.bytes(0..<FuseFixture.size))
        }
    }

    @Test("When the remote has changed, present bytes stay readable and missing ones are EIO")
    func changed() throws {
        try withOpen { fuse, node, handle throws in
            _ = try fuse.read(node, handle, 0..<Self.granule)
            let new = RemoteObject(
                key: RemoteKey(Array("file".utf8)), version: RemoteVersion([9]), size: FuseFixture.size)
            fuse.remote.behaviour.withLock { $0.current = new }
            #expect(throws: Errno(rawValue: EIO)) { try fuse.read(node, handle, 2 * Self.granule..<3 * Self.granule) }
            #expect(try fuse.read(node, handle, 0..<Self.granule) == Pattern.bytes(0..<Self.granule))
            #expect(fuse.present(node) == [0..<1])
            try until("the record") { try fuse.record("file")?.flags.contains(.stale) == true }
        }
    }

    @Test("A read-ahead of present and absent pages fails once when nothing comes")
    func byPages() throws {
        try withOpen { fuse, node, handle throws in
            _ = try fuse.read(node, handle, 0..<Self.granule)
            let inode = try #require(fuse.fileSystem.inodes.find(node))
            let file = try #require(inode.content)
            fuse.remote.hold(true)
            let ahead = fuse.send(FUSE_READ, node, fuse.readBody(handle, 0..<4 * Self.granule))
            #expect(try fuse.kernel.wait(for: ahead).code != 0)
            #expect(inode.state.withLock { $0.pages?.byPages.contains(0..<4) } == true)
            #expect(try fuse.read(node, handle, 0..<Self.page) == Pattern.bytes(0..<Self.page))
            #expect(inode.state.withLock { $0.pages?.byPages.contains(0) } == false)
            // The kernel keeps these pages as one: now an error would be the program's.
            let again = fuse.send(FUSE_READ, node, fuse.readBody(handle, Self.page..<4 * Self.granule))
            usleep(20_000)
            #expect(fuse.kernel.answer(to: again) == nil)
            fuse.remote.hold(false)
            #expect(try fuse.kernel.wait(for: again).payload == Pattern.bytes(Self.page..<4 * Self.granule))
            #expect(file.fill.isPresent(0..<4 * Self.granule))
        }
    }

    @Test("A direct read never fails for its present pages: its error would be the program's")
    func direct() throws {
        try withOpen { fuse, node, handle throws in
            _ = try fuse.read(node, handle, 0..<Self.granule)
            fuse.remote.hold(true)
            var body = fuse_read_in()
            (body.fh, body.size, body.lock_owner) = (handle, UInt32(4 * Self.granule), 77)
            let read = fuse.send(FUSE_READ, node, bytes(of: body))
            usleep(20_000)
            #expect(fuse.kernel.answer(to: read) == nil)
            fuse.remote.hold(false)
            #expect(try fuse.kernel.wait(for: read).payload == Pattern.bytes(0..<4 * Self.granule))
        }
    }

    @Test("A thread that waits for something else has sent its read ahead; one that runs is looked at again")
    func ahead() throws {
        try withOpen { fuse, node, handle throws in
            let thread = try BusyThread()
            defer { thread.end() }
            let own = Caller(user: geteuid(), group: getegid(), thread: thread.number)
            let (priority, isDoubtful) = FileSystem.priority(of: own)
            #expect(isDoubtful && priority == .prefetch)
            let unknown = FileSystem.priority(of: .stranger)
            #expect(!unknown.isDoubtful && unknown.0 == .demand)
            fuse.remote.hold(true)
            let read = fuse.send(FUSE_READ, node, fuse.readBody(handle, 0..<Self.granule), as: own)
            // It still runs at the first look.
            try until("the first look") { fuse.fileSystem.runners.withLock { $0.old[own.thread]?.count == 1 } }
            fuse.fileSystem.recheckRunning()
            let left = fuse.fileSystem.runners.withLock { $0.old.count + $0.new.count }
            #expect(left == 0)
            thread.sleep()
            try until("the sleep") {
                let now = FileSystem.priority(of: own)
                return now.0 == .prefetch && !now.isDoubtful
            }
            fuse.remote.hold(false)
            #expect(try fuse.kernel.wait(for: read).payload == Pattern.bytes(0..<Self.granule))
        }
    }

    @Test("A complete file without passthrough is read by the daemon, by handles that share a descriptor")
    func cached() throws {
        try withFuse(passthrough: false) { fuse throws in
            let content = Pattern.bytes(0..<10_000)
            try fuse.makeLocal("local", content)
            let node = try fuse.lookup("local").nodeid
            let handles = try (0..<3).map { _ in try fuse.open(node).fh }
            for handle in handles {
                #expect(try fuse.read(node, handle, 0..<20_000) == content)
                #expect(try fuse.read(node, handle, 9000..<9010) == Array(content[9000..<9010]))
            }
            let shared = fuse.fileSystem.inodes.find(node)?.state.withLock(\.descriptors.shared.count)
            #expect(shared == 1)
            for handle in handles { try fuse.close(node, handle) }
            #expect(fuse.fileSystem.inodes.find(node)?.state.withLock(\.descriptors.shared.isEmpty) == true)
        }
    }

    @Test("A write-only handle cannot be read")
    func writeOnly() throws {
        try withFuse(passthrough: false) { fuse throws in
            try fuse.makeLocal("local", [1])
            let node = try fuse.lookup("local").nodeid
            let handle = try fuse.open(node, O_WRONLY).fh
            #expect(throws: Errno(rawValue: EBADF)) { try fuse.read(node, handle, 0..<10) }
            try fuse.close(node, handle)
        }
    }

    @Test("An incomplete file has no holes for LSEEK, a complete one those of the lower file")
    func holes() throws {
        try withOpen { fuse, node, handle throws in
            let (data, hole) = (PASSHSM_SEEK_DATA, PASSHSM_SEEK_HOLE)
            #expect(try fuse.seek(node, handle, 5000, data) == 5000)
            #expect(try fuse.seek(node, handle, 5000, hole) == FuseFixture.size)
            for offset in [FuseFixture.size, FuseFixture.size + 1, -1] {
                #expect(throws: Errno(rawValue: ENXIO)) { try fuse.seek(node, handle, offset, data) }
                #expect(throws: Errno(rawValue: ENXIO)) { try fuse.seek(node, handle, offset, hole) }
            }
            #expect(fuse.remote.log.reads.isEmpty)
            let local = try Descriptor.open(fuse.lower("sparse"), O_RDWR | O_CREAT, mode: 0o600)
            try local.put([1], at: 1 << 20)
            try local.truncate(to: 2 << 20)
            let sparse = try fuse.lookup("sparse").nodeid
            let opened = try fuse.open(sparse)
            #expect(try fuse.seek(sparse, opened.fh, 0, data) == 1 << 20)
            #expect(try fuse.seek(sparse, opened.fh, 0, hole) == 0)
            #expect(try fuse.seek(sparse, opened.fh, 1 << 20, hole) == 1 << 20 + 4096)
            #expect(throws: Errno(rawValue: ENXIO)) { try fuse.seek(sparse, opened.fh, 1 << 20 + 4096, data) }
            try fuse.close(sparse, opened.fh)
        }
    }

    @Test("FSYNC of an incomplete file records what is present")
    func sync() throws {
        try withOpen { fuse, node, handle throws in
            _ = try fuse.read(node, handle, 0..<2 * Self.granule)
            try fuse.fsync(node, handle)
            try fuse.fsync(node, handle, dataOnly: true)
            #expect(try fuse.record("file")?.state == .partial)
            let state = try fuse.store.describe(Descriptor.open(fuse.lower("file"), O_RDONLY))
            #expect(state.presentRanges == [0..<2 * Self.granule])
            #expect(throws: Errno(rawValue: ESTALE)) { try fuse.fsync(node, 0xdead) }
        }
    }

    @Test("Buffers are used again, up to their usual size")
    func buffers() {
        let buffers = ReadBuffers()
        let (first, large) = (buffers.take(10), buffers.take(ReadBuffers.size + 1))
        #expect(first.count == ReadBuffers.size && large.count == ReadBuffers.size + 1)
        buffers.putBack(first)
        buffers.putBack(large)
        let again = buffers.take(ReadBuffers.size)
        #expect(again.baseAddress == first.baseAddress)
        let many = (0..<10).map { _ in buffers.take(1) }
        for buffer in many + [again] { buffers.putBack(buffer) }
        let kept = (0..<8).map { _ in buffers.take(1) }
        #expect(Set(kept.map(\.baseAddress)).count == 8)
        for buffer in kept { buffers.putBack(buffer) }
    }
}

/// A thread that runs until it is told to sleep, and then until it is told to end.
private final class BusyThread: Sendable {
    private let started = Atomic<Int32>(0)
    private let (sleeps, ends) = (Flag(), Flag())

    init() throws {
        try startThread(name: "busy") { [self] in
            started.store(passhsm_gettid(), ordering: .releasing)
            while !sleeps.isSet && !ends.isSet {}
            while !ends.isSet { usleep(20_000) }
        }
        try until("the thread") { number != 0 }
    }

    var number: pid_t { started.load(ordering: .acquiring) }
    func sleep() { sleeps.set() }
    func end() { ends.set() }
}
