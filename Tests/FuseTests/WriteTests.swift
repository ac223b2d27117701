import CFuse
import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse
@testable import HSMFuseDoor

@Suite struct WriteTests {
    private static let granule = FuseFixture.granule
    private static let local = [UInt8](repeating: 0xee, count: 3 * FuseFixture.granule)

    /// An incomplete file that is open for reading and writing. Its whole content is compared at the end: with the
    /// lower file, and with what a reader gets.
    private func withOpen(
        _ change: (inout FuseMount.Options) -> Void = { _ in },
        _ body: (FuseFixture, UInt64, UInt64, inout [UInt8]) throws -> Void
    ) throws {
        try withFuse {
            $0.fill = .read
            change(&$0)
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let handle = try fuse.open(node, O_RDWR).fh
            var expected = Pattern.bytes(0..<FuseFixture.size)
            try body(fuse, node, handle, &expected)
            #expect(try fuse.read(node, handle, 0..<1 << 17) == expected)
            try fuse.close(node, handle)
            try until("the record") { try fuse.record("file")?.isComplete == true }
            #expect(try fuse.lowerBytes("file") == expected)
        }
    }

    @Test("Whole granules that are written are never fetched")
    func absent() throws {
        try withOpen { fuse, node, handle, expected throws in
            let new = Array(Self.local[..<(2 * Self.granule)])
            #expect(try fuse.write(node, handle, new, at: 2 * Self.granule) == new.count)
            #expect(fuse.remote.log.reads.isEmpty)
            #expect(fuse.present(node) == [2..<4])
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            expected.replaceSubrange(2 * Self.granule..<4 * Self.granule, with: new)
        }
    }

    @Test("A granule that is written in part is filled first, and only it")
    func partly() throws {
        try withOpen { fuse, node, handle, expected throws in
            let new = Array(Self.local[..<5000])
            #expect(try fuse.write(node, handle, new, at: 6000) == 5000)
            let reads = fuse.remote.log.reads.sorted { $0.lowerBound < $1.lowerBound }
            // Both edges, and together or apart.
            #expect(reads.map(\.count).reduce(0, +) == 2 * Self.granule)
            #expect(reads.first?.lowerBound == Self.granule && reads.last?.upperBound == 3 * Self.granule)
            #expect(fuse.present(node) == [1..<3])
            expected.replaceSubrange(6000..<11_000, with: new)
        }
    }

    @Test("A write of present bytes is answered at once, even when the remote is gone")
    func present() throws {
        try withOpen { fuse, node, handle, expected throws in
            _ = try fuse.read(node, handle, 0..<Self.granule)
            fuse.remote.goDown(FillError(.io, .remoteGone, "gone"))
            let write = fuse.send(FUSE_WRITE, node, fuse.writeBody(handle, [1, 2, 3], at: 100))
            #expect(try #require(fuse.kernel.answer(to: write)).value(fuse_write_out.self).size == 3)
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            fuse.remote.comeBack()
            expected.replaceSubrange(100..<103, with: [1, 2, 3])
        }
    }

    @Test("A write whose edge cannot be filled changes nothing")
    func failedEdge() throws {
        try withOpen { fuse, node, handle, _ throws in
            fuse.remote.goDown(FillError(.io, .remoteGone, "gone"))
            #expect(throws: Errno(rawValue: EIO)) { try fuse.write(node, handle, [1, 2, 3], at: 100) }
            #expect(fuse.present(node).isEmpty)
            #expect(try fuse.record("file")?.flags.contains(.dirty) == false)
            fuse.remote.comeBack()
        }
    }

    @Test("A write into a fetch that is under way wins over the remote's bytes")
    func againstFetch() throws {
        try withOpen { fuse, node, handle, expected throws in
            fuse.remote.setBarrier(Self.granule)
            let read = fuse.send(FUSE_READ, node, fuse.readBody(handle, 0..<4 * Self.granule))
            try until("the fetch") { fuse.remote.log.running == 1 }
            let new = Array(Self.local[..<Self.granule])
            let write = fuse.send(FUSE_WRITE, node, fuse.writeBody(handle, new, at: 2 * Self.granule))
            fuse.remote.setBarrier(nil)
            #expect(try fuse.kernel.wait(for: write).value(fuse_write_out.self).size == UInt32(Self.granule))
            #expect(try fuse.kernel.wait(for: read).code == 0)
            expected.replaceSubrange(2 * Self.granule..<3 * Self.granule, with: new)
        }
    }

    @Test("A write behind the end of an incomplete file leaves zeros between")
    func behind() throws {
        try withOpen { fuse, node, handle, expected throws in
            let size = FuseFixture.size
            #expect(try fuse.write(node, handle, [4, 5], at: size + 1000) == 2)
            #expect(try fuse.attributes(node).size == UInt64(size + 1002))
            #expect(fuse.remote.log.reads.isEmpty)
            expected += [UInt8](repeating: 0, count: 1000) + [4, 5]
        }
    }

    @Test("A short write is told as far as granules can be believed")
    func short() async throws {
        try await withFuse {
            $0.fill = .read
        } _: { fuse async throws in
            let node = try fuse.lookup("file").nodeid
            let handle = try fuse.open(node, O_RDWR).fh
            let file = try #require(fuse.fileSystem.inodes.find(node)?.content)
            var unique: UInt64 = 1
            func change(_ range: Range<Int>, done: Int) async throws -> Int {
                unique += 1_000_000
                let reply = PendingReply(Reply(fuse.connection, unique, .test))
                let result: Result<Int, Errno> = await withCheckedContinuation { continuation in
                    fuse.fileSystem.change(range, of: file, through: file.stored.lower, reply) { lower throws(Errno) in
                        try [UInt8](repeating: 0xee, count: done).withBytes { bytes throws(Errno) in
                            try lower.write(bytes, at: range.lowerBound)
                        }
                        return done
                    } then: { reply, result in
                        reply.done()
                        continuation.resume(returning: result)
                    }
                }
                return try result.get()
            }
            // The second granule has been written in part: its rest is not there, and the remote's bytes come back.
            #expect(try await change(0..<3 * Self.granule, done: Self.granule + 100) == Self.granule)
            #expect(fuse.present(node) == [0..<1])
            await #expect(throws: Errno(rawValue: ENOSPC)) {
                _ = try await change(4 * Self.granule..<6 * Self.granule, done: 100)
            }
            #expect(fuse.present(node) == [0..<1])
            // Of a present granule each byte counts.
            #expect(try await change(0..<3 * Self.granule, done: 100) == 100)
            let content = [UInt8](repeating: 0xee, count: Self.granule)
            let rest = Pattern.bytes(Self.granule..<FuseFixture.size)
            #expect(try fuse.read(node, handle, 0..<FuseFixture.size) == content + rest)
            try fuse.close(node, handle)
        }
    }

    @Test("A write takes setuid and setgid away where the kernel says so")
    func setIDs() throws {
        try withOpen { fuse, node, handle, expected throws in
            func mode() throws -> mode_t { try fuse.lowerStatus("file").st_mode & 0o7777 }
            func write(_ flags: UInt32) throws {
                let body = fuse.writeBody(handle, [1], at: 0, flags: flags)
                #expect(try fuse.success(FUSE_WRITE, node, body).value(fuse_write_out.self).size == 1)
            }
            _ = try fuse.setattr(node, FATTR_MODE) { $0.mode = 0o6777 }
            try write(0)
            #expect(try mode() == 0o6777)
            try write(PASSHSM_WRITE_KILL_SUIDGID)
            #expect(try mode() == 0o777)
            expected[0] = 1
        }
    }

    @Test("A complete file without passthrough is written by the daemon, and becomes dirty at its open")
    func complete() throws {
        try withFuse(passthrough: false) { fuse throws in
            let node = try fuse.lookup("file").nodeid
            try fuse.fill("file", node)
            let handle = try fuse.open(node, O_RDWR).fh
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            #expect(try fuse.write(node, handle, [1, 2, 3], at: 10) == 3)
            #expect(try fuse.lowerBytes("file", 9..<14) == [Pattern.byte(at: 9), 1, 2, 3, Pattern.byte(at: 13)])
            try fuse.fsync(node, handle)
            try fuse.close(node, handle)
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            let reading = try fuse.open(node).fh
            #expect(throws: Errno(rawValue: EBADF)) { try fuse.write(node, reading, [1], at: 0) }
            try fuse.close(node, reading)
        }
    }

    @Test("An append-only file is opened for appending only")
    func appendOnly() throws {
        try withFuse { fuse throws in
            try fuse.makeLocal("local", [1])
            fuse.directory.shell("chattr +a .passhsm/tree/local")
            defer { fuse.directory.shell("chattr -a .passhsm/tree/local") }
            let node = try fuse.lookup("local").nodeid
            #expect(throws: Errno(rawValue: EPERM)) { try fuse.open(node, O_RDWR) }
            let opened = try fuse.open(node, O_RDWR | O_APPEND)
            #expect(try fuse.write(node, opened.fh, [2, 3], at: 0) == 2)
            #expect(try fuse.lowerBytes("local") == [1, 2, 3])
            try fuse.close(node, opened.fh)
        }
    }

    // MARK: Space

    private static let (keep, punch, zero): (Int32, Int32, Int32) = (
        PASSHSM_FALLOC_KEEP_SIZE, PASSHSM_FALLOC_PUNCH_HOLE | PASSHSM_FALLOC_KEEP_SIZE, PASSHSM_FALLOC_ZERO_RANGE
    )

    @Test("Space that is reserved leaves missing content missing")
    func reserves() throws {
        try withOpen { fuse, node, handle, expected throws in
            try fuse.fallocate(node, handle, mode: Self.keep, 0..<FuseFixture.size + 100_000)
            #expect(try fuse.attributes(node).size == UInt64(FuseFixture.size))
            #expect(fuse.remote.log.reads.isEmpty && fuse.present(node).isEmpty)
            #expect(try fuse.lowerStatus("file").st_blocks * 512 >= FuseFixture.size + 100_000)
            try fuse.fallocate(node, handle, mode: 0, 0..<FuseFixture.size + 1000)
            #expect(try fuse.attributes(node).size == UInt64(FuseFixture.size + 1000))
            #expect(fuse.remote.log.reads.isEmpty)
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            expected += [UInt8](repeating: 0, count: 1000)
        }
    }

    @Test("A range that is made zeros is not fetched, but for its edges", arguments: [true, false])
    func zeros(punches: Bool) throws {
        try withOpen { fuse, node, handle, expected throws in
            let mode = punches ? Self.punch : Self.zero
            try fuse.fallocate(node, handle, mode: mode, 100..<2 * Self.granule + 50)
            let reads = fuse.remote.log.reads.sorted { $0.lowerBound < $1.lowerBound }
            #expect(reads == [0..<Self.granule, 2 * Self.granule..<3 * Self.granule])
            #expect(fuse.present(node) == [0..<3])
            let count = 2 * Self.granule - 50
            expected.replaceSubrange(100..<100 + count, with: [UInt8](repeating: 0, count: count))
        }
    }

    @Test("FALLOCATE of a complete file is the lower file system's")
    func completeSpace() throws {
        try withFuse { fuse throws in
            try fuse.makeLocal("local", Self.local)
            let node = try fuse.lookup("local").nodeid
            let handle = try fuse.open(node, O_RDWR).fh
            try fuse.fallocate(node, handle, mode: Self.punch, Self.granule..<2 * Self.granule)
            let zeros = [UInt8](repeating: 0, count: Self.granule)
            let kept = Array(Self.local[..<Self.granule])
            #expect(try fuse.lowerBytes("local") == kept + zeros + kept)
            #expect(throws: Errno(rawValue: EINVAL)) { try fuse.fallocate(node, handle, mode: 0, 5..<5) }
            #expect(throws: Errno(rawValue: ESTALE)) { try fuse.fallocate(node, 0xdead, mode: 0, 0..<5) }
            try fuse.close(node, handle)
        }
    }

    // MARK: Copying

    @Test("A copy fetches what it reads, and not what it replaces", arguments: [false, true], [false, true])
    func copy(isSourceComplete: Bool, isTargetComplete: Bool) throws {
        try withFuse(files: ["from", "to"]) {
            $0.fill = .read
        } _: { fuse throws in
            let (from, to) = (try fuse.lookup("from").nodeid, try fuse.lookup("to").nodeid)
            if isSourceComplete { try fuse.fill("from", from) }
            if isTargetComplete { try fuse.fill("to", to) }
            fuse.remote.forgetReads()
            let (source, target) = (try fuse.open(from).fh, try fuse.open(to, O_RDWR).fh)
            let granule = Self.granule
            let count = try fuse.copy(
                from, source, at: granule, to: (node: to, fh: target), at: 4 * granule, count: 2 * granule)
            #expect(count == 2 * granule)
            let expectedReads = isSourceComplete ? 0 : 2 * granule
            #expect(fuse.remote.log.reads.map(\.count).reduce(0, +) == expectedReads)
            #expect(fuse.remote.log.reads.allSatisfy { $0.lowerBound >= granule && $0.upperBound <= 3 * granule })
            #expect(try fuse.record("to")?.flags.contains(.dirty) == true)
            #expect(try fuse.record("from")?.flags == [])
            if !isTargetComplete { #expect(fuse.present(to) == [4..<6]) }
            let expected =
                Pattern.bytes(0..<4 * granule) + Pattern.bytes(granule..<3 * granule)
                + Pattern.bytes(6 * granule..<FuseFixture.size)
            #expect(try fuse.read(to, target, 0..<FuseFixture.size) == expected)
            try fuse.close(from, source)
            try fuse.close(to, target)
            #expect(try fuse.lowerBytes("to") == expected)
        }
    }

    @Test("A copy from unknown handles is ESTALE, and one whose source is gone an error")
    func failedCopy() throws {
        try withFuse(files: ["from", "to"]) {
            $0.fill = .read
        } _: { fuse throws in
            let (from, to) = (try fuse.lookup("from").nodeid, try fuse.lookup("to").nodeid)
            let (source, target) = (try fuse.open(from).fh, try fuse.open(to, O_RDWR).fh)
            #expect(throws: Errno(rawValue: ESTALE)) {
                try fuse.copy(from, 0xdead, at: 0, to: (node: to, fh: target), at: 0, count: 10)
            }
            fuse.remote.goDown(FillError(.io, .remoteGone, "gone"))
            #expect(throws: Errno(rawValue: EIO)) {
                try fuse.copy(from, source, at: 0, to: (node: to, fh: target), at: 0, count: Self.granule)
            }
            #expect(fuse.present(to).isEmpty)
            #expect(try fuse.record("to")?.flags == [])
            try fuse.close(from, source)
            try fuse.close(to, target)
        }
    }
}
