import CFuse
import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse

/// The invalidations that the kernel is sent, so that its pages are those of the lower file.
@Suite struct CoherenceTests {
    /// A complete file that the daemon reads for the kernel.
    private func withLocal(
        _ change: (inout FuseMount.Options) -> Void = { _ in }, _ body: (FuseFixture, UInt64) throws -> Void
    ) throws {
        try withFuse(passthrough: false, change) { fuse throws in
            try fuse.makeLocal("local", [1, 2, 3])
            try body(fuse, fuse.lookup("local").nodeid)
        }
    }

    /// What a program does that uses the lower directory itself.
    private func changeOutside(_ fuse: FuseFixture, _ content: [UInt8]) throws {
        try fuse.makeLocal("local", content)
    }

    private func all(_ node: UInt64) -> ScriptedKernel.Invalidation { .init(node: node, offset: 0, count: 0) }

    @Test("A change by others drops the pages at the next open, and nothing else does")
    func atOpen() throws {
        try withLocal { fuse, node throws in
            for _ in 0..<2 { try fuse.close(node, fuse.open(node).fh) }
            #expect(fuse.kernel.invalidations.isEmpty)
            try changeOutside(fuse, [9, 9, 9, 9])
            let handle = try fuse.open(node).fh
            #expect(fuse.kernel.invalidations == [all(node)])
            #expect(try fuse.read(node, handle, 0..<10) == [9, 9, 9, 9])
            try fuse.close(node, handle)
            try fuse.close(node, fuse.open(node).fh)
            #expect(fuse.kernel.invalidations.count == 1)
        }
    }

    @Test("While a file is open a change by others drops the pages at the next look")
    func whileOpen() throws {
        try withLocal { fuse, node throws in
            let handle = try fuse.open(node).fh
            fuse.fileSystem.sweep()
            #expect(fuse.kernel.invalidations.isEmpty)
            try changeOutside(fuse, [9, 9, 9, 9])
            fuse.fileSystem.sweep()
            try until("the drop") { fuse.kernel.invalidations == [all(node)] }
            fuse.fileSystem.sweep()
            // The next open looks too, and waits for a drop that is under way.
            try changeOutside(fuse, [8])
            let second = try fuse.open(node).fh
            try until("the drop") { fuse.kernel.invalidations.count == 2 }
            try fuse.close(node, handle)
            try fuse.close(node, second)
        }
    }

    @Test("While a handle can write nothing is dropped")
    func writer() throws {
        try withLocal { fuse, node throws in
            let handle = try fuse.open(node, O_RDWR).fh
            try changeOutside(fuse, [9, 9, 9, 9])
            fuse.fileSystem.sweep()
            usleep(10_000)
            #expect(fuse.kernel.invalidations.isEmpty)
            try fuse.close(node, handle)
        }
    }

    @Test("A change of size or times through the mount is not taken for one by others")
    func ownChange() throws {
        try withLocal { fuse, node throws in
            let handle = try fuse.open(node).fh
            #expect(try fuse.truncate(node, to: 2).size == 2)
            _ = try fuse.setattr(node, FATTR_MTIME) { $0.mtime = 5 }
            fuse.fileSystem.sweep()
            usleep(10_000)
            #expect(fuse.kernel.invalidations.isEmpty)
            try fuse.close(node, handle)
            try fuse.close(node, fuse.open(node).fh)
            #expect(fuse.kernel.invalidations.isEmpty)
        }
    }

    @Test("An exclusive mount does not look for changes")
    func exclusive() throws {
        try withLocal {
            $0.cache = .exclusive
        } _: { fuse, node throws in
            try fuse.close(node, fuse.open(node).fh)
            try changeOutside(fuse, [9])
            let handle = try fuse.open(node).fh
            fuse.fileSystem.sweep()
            #expect(fuse.kernel.invalidations.isEmpty)
            try fuse.close(node, handle)
        }
    }

    @Test("Pages from before a passthrough handle are dropped at the next cached open")
    func afterPassthrough() throws {
        try withFuse { fuse throws in
            try fuse.makeLocal("local", [1, 2, 3])
            let node = try fuse.lookup("local").nodeid
            func open(_ refusal: Int32?) throws -> UInt32 {
                fuse.kernel.refuseBacking(refusal)
                let opened = try fuse.open(node)
                try fuse.close(node, opened.fh)
                return opened.open_flags
            }
            #expect(try open(ENOMEM) == UInt32(FOPEN_KEEP_CACHE))
            #expect(try open(nil) & PASSHSM_FOPEN_PASSTHROUGH != 0)
            #expect(fuse.kernel.invalidations.isEmpty)
            let inode = try #require(fuse.fileSystem.inodes.find(node))
            fuse.fileSystem.known.backing.withLock { $0?.drop(inode) }
            #expect(try open(ENOMEM) == UInt32(FOPEN_KEEP_CACHE))
            #expect(fuse.kernel.invalidations == [all(node)])
        }
    }

    @Test("A file that switches to the remote's new version drops the pages of the old one")
    func refetched() throws {
        try withFuse {
            ($0.fill, $0.onChange) = (.read, .refetch)
        } _: { fuse throws in
            func version(_ number: UInt8) -> RemoteObject {
                RemoteObject(
                    key: RemoteKey(Array("file".utf8)), version: RemoteVersion([number]), size: FuseFixture.size)
            }
            fuse.remote.behaviour.withLock { $0.current = version(0) }
            let node = try fuse.lookup("file").nodeid
            var handle = try fuse.open(node).fh
            #expect(try fuse.read(node, handle, 0..<100) == Pattern.bytes(0..<100))
            try fuse.close(node, handle)
            try until("the end of the use") {
                fuse.fileSystem.sweep()
                return fuse.fileSystem.inodes.find(node)?.content == nil
            }
            fuse.remote.behaviour.withLock { $0.current = version(5) }
            fuse.kernel.forgetInvalidations()
            handle = try fuse.open(node).fh
            #expect(fuse.kernel.invalidations.contains(all(node)))
            #expect(try fuse.read(node, handle, 0..<100) == Pattern.bytes(0..<100, seed: 5))
            #expect(try fuse.record("file")?.object.version == version(5).version)
            try fuse.close(node, handle)
        }
    }

    @Test("Behind a reader of a large file the pages are dropped, of a small one none")
    func behind() throws {
        let mebibyte = 1 << 20
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            fuse.remote.behaviour.withLock { $0.chunk = mebibyte }
            try fuse.makeOffline("large", size: 64 * mebibyte, granule: mebibyte)
            let node = try fuse.lookup("large").nodeid
            let handle = try fuse.open(node).fh
            let content = try #require(fuse.fileSystem.inodes.find(node)?.content)
            for start in 0..<34 {
                let range = start * mebibyte..<(start + 1) * mebibyte
                #expect(try fuse.read(node, handle, range).count == mebibyte)
            }
            #expect(content.fill.isPresent(0..<34 * mebibyte))
            try until("the drop") { !fuse.kernel.invalidations.isEmpty }
            for drop in fuse.kernel.invalidations {
                #expect(drop.node == node && drop.offset == 0)
                #expect(drop.count >= 16 * mebibyte && drop.count <= 24 * mebibyte)
            }
            try fuse.close(node, handle)
        }
    }
}
