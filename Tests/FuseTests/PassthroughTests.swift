import CFuse
import CLinux
import Glibc
import HSMFuseDoor
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct PassthroughTests {
    /// Complete files without a record.
    private func makeLocal(_ fuse: FuseFixture, _ count: Int) throws -> [UInt64] {
        try (0..<count).map { number in
            try fuse.makeLocal("local-\(number)", [1, 2, 3])
            return try fuse.lookup("local-\(number)").nodeid
        }
    }

    private func isPassthrough(_ opened: passhsm_open_out) -> Bool {
        opened.open_flags == PASSHSM_FOPEN_PASSTHROUGH | PASSHSM_FOPEN_NOFLUSH
    }

    @Test("A file is registered once, and keeps its id over opens")
    func kept() throws {
        try withFuse { fuse throws in
            let node = try makeLocal(fuse, 1)[0]
            let first = try fuse.open(node)
            let second = try fuse.open(node, O_RDWR)
            #expect(isPassthrough(first) && isPassthrough(second) && first.backing_id == second.backing_id)
            try fuse.close(node, first.fh)
            try fuse.close(node, second.fh)
            #expect(fuse.kernel.backing == [first.backing_id])
            let third = try fuse.open(node)
            #expect(third.backing_id == first.backing_id)
            try fuse.close(node, third.fh)
        }
    }

    @Test("Of the idle ids the longest unused are given back; one with open handles is kept")
    func evicted() throws {
        try withFuse { fuse throws in
            fuse.fileSystem.known.backing.withLock { $0 = BackingIDs(fuse.kernel, limit: 3) }
            let nodes = try makeLocal(fuse, 10)
            let held = try fuse.open(nodes[0])
            for node in nodes[1...] { try fuse.close(node, fuse.open(node).fh) }
            #expect(fuse.kernel.backing.count == 3)
            #expect(fuse.kernel.backing.contains(held.backing_id))
            #expect(fuse.fileSystem.known.backing.withLock { $0?.count } == 3)
            // One that was given up is registered anew.
            let again = try fuse.open(nodes[1])
            #expect(isPassthrough(again) && fuse.kernel.backing.contains(again.backing_id))
            #expect(fuse.kernel.backing.count == 3)
            try fuse.close(nodes[1], again.fh)
            try fuse.close(nodes[0], held.fh)
        }
    }

    @Test("More files may be open than ids are kept")
    func allOpen() throws {
        try withFuse { fuse throws in
            fuse.fileSystem.known.backing.withLock { $0 = BackingIDs(fuse.kernel, limit: 2) }
            let nodes = try makeLocal(fuse, 6)
            let opened = try nodes.map { try fuse.open($0) }
            #expect(Set(opened.map(\.backing_id)) == fuse.kernel.backing && fuse.kernel.backing.count == 6)
            for (node, opened) in zip(nodes, opened) { try fuse.close(node, opened.fh) }
        }
    }

    @Test("FORGET gives the id back")
    func forgotten() throws {
        try withFuse { fuse throws in
            let nodes = try makeLocal(fuse, 3)
            let ids = try nodes.map { node in
                let opened = try fuse.open(node)
                try fuse.close(node, opened.fh)
                return opened.backing_id
            }
            fuse.forget(nodes[1])
            #expect(fuse.kernel.backing == [ids[0], ids[2]])
            fuse.forget(nodes[0])
            fuse.forget(nodes[2])
            #expect(fuse.kernel.backing.isEmpty)
            #expect(fuse.fileSystem.known.backing.withLock { $0?.count } == 0)
        }
    }

    @Test("While a cached handle is open the file is opened cached, and afterwards in passthrough again")
    func refused() throws {
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let cached = try fuse.open(node)
            #expect(!isPassthrough(cached))
            _ = try fuse.read(node, cached.fh, 0..<FuseFixture.size)
            try until("the record") { try fuse.record("file")?.state == .dual }
            for flags in [O_RDONLY, O_RDWR] {
                let second = try fuse.open(node, flags)
                #expect(!isPassthrough(second) && second.open_flags == UInt32(FOPEN_KEEP_CACHE))
                try fuse.close(node, second.fh)
            }
            #expect(fuse.kernel.backing.isEmpty)
            try fuse.close(node, cached.fh)
            let last = try fuse.open(node)
            #expect(isPassthrough(last))
            try fuse.close(node, last.fh)
        }
    }

    @Test("A file that the kernel does not take is served by the daemon")
    func unregistered() throws {
        try withFuse { fuse throws in
            let node = try makeLocal(fuse, 1)[0]
            fuse.kernel.refuseBacking(ENOMEM)
            let opened = try fuse.open(node)
            #expect(opened.open_flags == UInt32(FOPEN_KEEP_CACHE))
            #expect(try fuse.read(node, opened.fh, 0..<10) == [1, 2, 3])
            // A cached handle is open: no passthrough beside it.
            fuse.kernel.refuseBacking(nil)
            let second = try fuse.open(node)
            #expect(!isPassthrough(second))
            try fuse.close(node, opened.fh)
            try fuse.close(node, second.fh)
        }
    }

    @Test("A file is dirty while it is open for writing, and clean again when nothing was written")
    func markedBack() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            try fuse.fill("file", node)
            let before = try fuse.lowerStatus("file").st_mtim
            let opened = try fuse.open(node, O_RDWR)
            #expect(isPassthrough(opened))
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            try fuse.close(node, opened.fh)
            #expect(try fuse.record("file")?.flags == [])
            let after = try fuse.lowerStatus("file").st_mtim
            #expect(before.tv_sec == after.tv_sec && before.tv_nsec == after.tv_nsec)
        }
    }

    @Test("A file that was written through passthrough stays dirty")
    func written() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            try fuse.fill("file", node)
            let (first, second) = (try fuse.open(node, O_RDWR), try fuse.open(node, O_WRONLY))
            // The kernel writes it.
            try Descriptor.open(fuse.lower("file"), O_WRONLY).put([1], at: 7)
            try fuse.close(node, first.fh)
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            try fuse.close(node, second.fh)
            fuse.fileSystem.sweep()
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            #expect(try fuse.lowerBytes("file", 6..<9) == [Pattern.byte(at: 6), 1, Pattern.byte(at: 8)])
        }
    }

    @Test("What the daemon still does for a passthrough handle it does on a descriptor of its own")
    func descriptor() throws {
        try withFuse { fuse throws in
            let node = try makeLocal(fuse, 1)[0]
            let opened = try fuse.open(node, O_RDWR | O_SYNC)
            #expect(OpenMode(rawValue: UInt8(opened.fh >> 56)).isSuperset(of: [.synchronous, .synchronousData]))
            try fuse.fsync(node, opened.fh)
            #expect(try fuse.write(node, opened.fh, [9], at: 1) == 1)
            #expect(try fuse.lowerBytes("local-0") == [1, 9, 3])
            #expect(try fuse.seek(node, opened.fh, 0, PASSHSM_SEEK_HOLE) == 3)
            try fuse.close(node, opened.fh)
        }
    }

    @Test("With the option off nothing is registered, and the reason is said")
    func off() throws {
        try withFuse {
            $0.allowsPassthrough = false
        } _: { fuse throws in
            let state = fuse.fileSystem.passthrough.withLock { $0 }
            #expect(!state.isOn && state.reason == "switched off")
            #expect(try fuse.initialize().flags2 & PASSHSM_FUSE_PASSTHROUGH_HIGH == 0)
            let node = try makeLocal(fuse, 1)[0]
            let opened = try fuse.open(node)
            #expect(opened.open_flags == UInt32(FOPEN_KEEP_CACHE) && fuse.kernel.backing.isEmpty)
            try fuse.close(node, opened.fh)
        }
    }

    @Test(
        "Each cause of a mount without passthrough is named",
        arguments: [
            (ENOTTY, "older than 6.9"), (EINVAL, "older than 6.9"), (ELOOP, "stacked"), (EOPNOTSUPP, "cannot"),
            (EIO, "rror"),
        ])
    func reasons(code: Int32, text: String) throws {
        try withFuse { fuse throws in
            fuse.kernel.refuseBacking(code)
            fuse.fileSystem.connected(fuse.kernel)
            let state = fuse.fileSystem.passthrough.withLock { $0 }
            #expect(!state.isOn && state.reason.contains(text), "\(state.reason)")
        }
    }
}
