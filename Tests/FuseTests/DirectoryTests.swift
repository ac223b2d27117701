import CFuse
import CLinux
import Glibc
import HSMFuseDoor
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct DirectoryTests {
    private static let names = (0..<200).map { "name-\($0)" }

    /// A file system with a folder of many empty files.
    private func withFolder(
        _ change: (inout FuseMount.Options) -> Void = { _ in }, _ body: (FuseFixture, UInt64) throws -> Void
    ) throws {
        try withFuse(change) { fuse throws in
            let node = try fuse.mkdir("folder").nodeid
            for name in Self.names { try fuse.makeLocal("folder/\(name)", []) }
            try body(fuse, node)
        }
    }

    @Test("The top shows what is in it, but not the store's folder")
    func top() throws {
        try withFuse(files: ["a", "b"]) { fuse throws in
            _ = try fuse.mkdir("folder")
            fuse.directory.shell("mkdir .passhsm/tree/.passhsm")
            let opened = try fuse.opendir()
            for plus in [false, true] {
                let all = try fuse.list(1, opened.fh, plus: plus)
                #expect(Set(all.map(\.name)) == [".", "..", "a", "b", "folder"])
                #expect(all.first { $0.name == "folder" }?.type == UInt32(DT_DIR))
                #expect(all.first { $0.name == "a" }?.type == UInt32(DT_REG))
            }
            try fuse.success(FUSE_RELEASEDIR, 1, bytes(of: Self.releasing(opened.fh)))
        }
    }

    private static func releasing(_ handle: UInt64) -> fuse_release_in {
        var body = fuse_release_in()
        body.fh = handle
        return body
    }

    @Test("Whatever the buffer's size, each name comes once", arguments: [40, 100, 1000, 1 << 17], [false, true])
    func buffers(size: Int, plus: Bool) throws {
        try withFolder { fuse, node throws in
            let opened = try fuse.opendir(node)
            let all = try fuse.list(node, opened.fh, size: size + (plus ? 128 : 0), plus: plus)
            #expect(all.map(\.name).sorted() == ([".", ".."] + Self.names).sorted())
            // Again from the start, and from the middle on.
            #expect(try fuse.list(node, opened.fh, size: size + (plus ? 128 : 0)).map(\.name) == all.map(\.name))
            let rest = try fuse.readdir(node, opened.fh, offset: all[99].offset, size: 1 << 17)
            #expect(rest.map(\.name) == all[100...].map(\.name))
        }
    }

    @Test("A buffer without room for one entry gets none")
    func tooSmall() throws {
        try withFolder { fuse, node throws in
            let opened = try fuse.opendir(node)
            #expect(try fuse.readdir(node, opened.fh, size: 8).isEmpty)
            #expect(try fuse.readdir(node, opened.fh, size: 0, plus: true).isEmpty)
            #expect(try fuse.readdir(node, opened.fh, size: 1 << 17).count == Self.names.count + 2)
        }
    }

    @Test("READDIRPLUS gives the kernel a reference to each entry, but not to dot and dot-dot")
    func references() throws {
        try withFolder { fuse, node throws in
            let before = fuse.fileSystem.inodes.count
            let opened = try fuse.opendir(node)
            let all = try fuse.list(node, opened.fh, plus: true)
            #expect(fuse.fileSystem.inodes.count == before + Self.names.count)
            for entry in all {
                #expect((entry.node == 0) == entry.name.hasPrefix("."))
                if entry.node == 0 { continue }
                #expect(try fuse.lookup(entry.name, in: node).nodeid == entry.node)
                fuse.forget(entry.node, 2)
            }
            #expect(fuse.fileSystem.inodes.count == before)
        }
    }

    @Test("A directory whose stream was given up for others goes on where it was")
    func suspended() throws {
        try withFolder { fuse, node throws in
            let opened = try fuse.opendir(node)
            let directory = try fuse.fileSystem.openDirectories.find(opened.fh)
            let all = try fuse.list(node, opened.fh, size: 1000) { directory.suspend() }
            #expect(all.map(\.name).sorted() == ([".", ".."] + Self.names).sorted())
        }
    }

    @Test("Only the directories that were read last keep a descriptor")
    func streams() throws {
        try withFuse { fuse throws in
            func descriptors() -> Int { DirectoryReader.texts(in: "/proc/self/fd").count }
            let before = descriptors()
            var handles: [UInt64] = []
            for _ in 0..<200 { handles.append(try fuse.opendir().fh) }
            #expect(descriptors() - before < 100)
            for handle in handles { #expect(try fuse.list(1, handle).count == 3) }
            for handle in handles { try fuse.success(FUSE_RELEASEDIR, 1, bytes(of: Self.releasing(handle))) }
            #expect(descriptors() - before < 10)
            #expect(fuse.fileSystem.openHandles.load(ordering: .relaxed) == 0)
        }
    }

    @Test("The kernel may keep a listing only where no one else changes the directory")
    func keeping() throws {
        try withFuse { fuse throws in #expect(try fuse.opendir().open_flags == 0) }
        try withFuse {
            $0.cache = .exclusive
        } _: { fuse throws in
            #expect(try fuse.opendir().open_flags == UInt32(FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE))
        }
    }

    @Test("FSYNCDIR syncs the lower directory; closed and unknown handles are ESTALE")
    func sync() throws {
        try withFolder { fuse, node throws in
            let opened = try fuse.opendir(node)
            for flags in [0, 1] as [UInt32] {
                let body = bytes(of: fuse_fsync_in(fh: opened.fh, fsync_flags: flags, padding: 0))
                #expect(try fuse.call(FUSE_FSYNCDIR, node, body).code == 0)
            }
            try fuse.success(FUSE_RELEASEDIR, node, bytes(of: Self.releasing(opened.fh)))
            let body = bytes(of: fuse_fsync_in(fh: opened.fh, fsync_flags: 0, padding: 0))
            #expect(try fuse.call(FUSE_FSYNCDIR, node, body).code == ESTALE)
            #expect(throws: Errno(rawValue: ESTALE)) { try fuse.readdir(node, opened.fh) }
            #expect(try fuse.call(FUSE_OPENDIR, .max, bytes(of: fuse_open_in())).code == ESTALE)
            let file = try fuse.lookup("file").nodeid
            #expect(try fuse.call(FUSE_OPENDIR, file, bytes(of: fuse_open_in())).code == ENOTDIR)
        }
    }

    @Test("An open whose answer the kernel no longer wants is closed again")
    func unwanted() throws {
        try withFuse { fuse throws in
            fuse.kernel.refuseReplies(true)
            _ = try fuse.opendir()
            #expect(fuse.fileSystem.openHandles.load(ordering: .relaxed) == 0)
        }
    }
}
