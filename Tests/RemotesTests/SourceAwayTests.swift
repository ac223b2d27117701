import Glibc
import HSMCore
import HSMSystem
import TestSupport
import Testing

@testable import HSMRemotes

/// A source directory that is not mounted, or is another one.
@Suite struct SourceAwayTests {
    /// A directory `real` that is mounted on `source`.
    private func withSource(_ body: (TemporaryDirectory, DirectorySource, RemoteObject) async throws -> Void)
        async throws
    {
        let tree = try TemporaryDirectory()
        defer {
            system("umount -l \(tree.path)/source 2>/dev/null")
            tree.remove()
        }
        tree.shell("mkdir real source; mkdir real/d; echo content > real/d/f; mount --bind real source")
        let path = Array("\(tree.path)/source".utf8)
        let identity = try SourceIdentity(of: try Descriptor.openTop(path))
        let source = DirectorySource(path: path, location: "test", identity: identity)
        try await body(tree, source, try #require(try await Listing(source).object("d/f")))
    }

    private func failure(_ source: any RemoteStore, _ object: RemoteObject) async -> FillError? {
        do throws(FillError) {
            try await source.read(object, range: 0..<8) { _ throws(FillError) in }
            return nil
        } catch { return error }
    }

    @Test func `it can be unmounted after it was read, is an outage then, and is back when it is mounted`() async throws
    {
        try await withSource { tree, source, object in
            #expect(await failure(source, object) == nil)
            tree.shell("umount source")
            let error = try #require(await failure(source, object))
            #expect(error.isOutage && error.reason == .remoteFailed && error.code == .io, "\(error)")
            #expect(error.cause.contains("\(tree.path)/source is away"))
            tree.shell("mount --bind real source")
            #expect(await failure(source, object) == nil)
        }
    }

    @Test func `what is there under its path is the source only on its own file system`() async throws {
        try await withSource { tree, source, object in
            tree.shell("umount source; cp -a real/d source/d")
            #expect(await failure(source, object)?.isOutage == true)
            tree.shell("mount -t tmpfs none source; cp -a real/d source/d")
            #expect(await failure(source, object)?.isOutage == true)
            tree.shell("umount source; rm -r source")
            #expect(await failure(source, object)?.isOutage == true)
            tree.shell("mkdir source; mount --bind real source; rm real/d/f")
            let error = await failure(source, object)
            #expect(error?.reason == .remoteGone && error?.isOutage == false)
        }
    }

    @Test func `where nothing is recorded, an empty directory is a source that is away`() async throws {
        try await withSource { tree, _, object in
            let source = DirectorySource(path: Array("\(tree.path)/source".utf8), location: "test")
            tree.shell("umount source")
            #expect(await failure(source, object)?.isOutage == true)
            tree.shell("touch source/other")
            #expect(await failure(source, object)?.reason == .remoteGone)
        }
    }

    @Test func `file systems are told apart by id, or else by type and place`() throws {
        func identity(_ type: String, _ id: String, _ path: String, _ isTop: Bool) -> SourceIdentity {
            SourceIdentity(type: type, id: id, mountpoint: BytePath(path), isMountpoint: isTop)
        }
        let disk = identity("xfs", "a1", "/mnt/a", true)
        #expect(disk.isSame(as: identity("xfs", "a1", "/mnt/b", true)), "mounted elsewhere")
        #expect(!disk.isSame(as: identity("xfs", "a2", "/mnt/a", true)))
        #expect(!disk.isSame(as: identity("xfs", "a1", "/mnt/a", false)), "another directory of the same disk")
        #expect(disk.isSame(as: identity("xfs", "", "/mnt/a", true)), "a kernel that tells no id")
        #expect(!disk.isSame(as: identity("ext4", "", "/mnt/a", true)))
        let net = identity("nfs", "", "/mnt/n", false)
        #expect(net.isSame(as: net) && !net.isSame(as: identity("nfs", "", "/", false)))
        for each in [disk, net, identity("fuse.sshfs", "", "/mnt/a b\n%", true)] {
            #expect(try SourceIdentity(text: each.text) == each)
        }
        for text in ["", "xfs", "xfs a1 top", "xfs a1 over /", "xfs a1 top mnt", "xfs a1 top /%00", "xfs a1 top /%"] {
            #expect(throws: LocationError.self) { _ = try SourceIdentity(text: text) }
        }
    }
}
