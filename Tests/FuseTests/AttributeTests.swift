import CFuse
import CLinux
import Glibc
import HSMFuseDoor
import HSMStore
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct AttributeTests {
    @Test("GETATTR shows the remote's modification time and no holes while a file is not complete")
    func incomplete() throws {
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let before = try fuse.attributes(node)
            #expect(before.mtime == 1_000_000_000 && before.mtimensec == 123_456_789)
            #expect(before.blocks == UInt64(FuseFixture.size / 512))
            let opened = try fuse.open(node)
            _ = try fuse.read(node, opened.fh, 0..<FuseFixture.size)
            try fuse.close(node, opened.fh)
            try until("the record") { try fuse.record("file")?.state == .dual }
            // The fill does not show, though it has moved the lower file's own change time.
            let after = try fuse.attributes(node)
            #expect(after.mtime == before.mtime && after.mtimensec == before.mtimensec)
            #expect(after.ctime == before.ctime && after.ctimensec == before.ctimensec)
            #expect(after.blocks == UInt64(try fuse.lowerStatus("file").st_blocks))
        }
    }

    @Test("The root has attributes too")
    func root() throws {
        try withFuse { fuse throws in
            let status = try fuse.lowerStatus("")
            let attributes = try fuse.attributes(1)
            #expect(attributes.mode == status.st_mode && attributes.ino == UInt64(status.st_ino))
            let changed = try fuse.setattr(1, FATTR_MODE) { $0.mode = 0o711 }
            #expect(changed.mode == S_IFDIR | 0o711)
            #expect(try fuse.lowerStatus("").st_mode == S_IFDIR | 0o711)
        }
    }

    @Test("STATX tells the time of birth")
    func birth() throws {
        try withFuse { fuse throws in
            for (node, name) in [(1, ""), (try fuse.lookup("file").nodeid, "file")] as [(UInt64, String)] {
                let out = try fuse.success(fuse_opcode(UInt32(PASSHSM_FUSE_STATX)), node).value(passhsm_statx_out.self)
                let lower = try Descriptor.open(fuse.lower(name), PASSHSM_O_PATH)
                let (status, birth) = (try lower.stat(), try #require(lower.birthTime()))
                #expect(out.mask == PASSHSM_STATX_BASIC_STATS | PASSHSM_STATX_BTIME)
                #expect(out.btime.seconds == Int64(birth.tv_sec) && out.btime.nanoseconds == UInt32(birth.tv_nsec))
                #expect(out.ino == UInt64(status.st_ino) && out.size == UInt64(status.st_size))
                #expect(UInt32(out.mode) == status.st_mode && out.nlink == UInt32(status.st_nlink))
                #expect(out.attr_valid == 1)
            }
            let unknown = try fuse.call(fuse_opcode(UInt32(PASSHSM_FUSE_STATX)), .max)
            #expect(unknown.code == ESTALE)
        }
    }

    @Test("Mode, owner and group go to the lower file, without a fetch")
    func modeAndOwner() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let mode = try fuse.setattr(node, FATTR_MODE) { $0.mode = S_IFREG | 0o640 }
            #expect(mode.mode == S_IFREG | 0o640)
            let owner = try fuse.setattr(node, FATTR_UID) { $0.uid = 17 }
            #expect(owner.uid == 17 && owner.gid == getegid())
            _ = try fuse.setattr(node, FATTR_GID) { $0.gid = 18 }
            let status = try fuse.lowerStatus("file")
            #expect(status.st_mode == S_IFREG | 0o640 && status.st_uid == 17 && status.st_gid == 18)
            #expect(fuse.remote.log.reads.isEmpty)
            #expect(try fuse.record("file")?.state == .offline && fuse.record("file")?.flags == [])
        }
    }

    @Test("Times are set apart from each other, to a value or to now")
    func times() throws {
        try withFuse { fuse throws in
            try fuse.makeLocal("local", [1])
            let node = try fuse.lookup("local").nodeid
            let both = try fuse.setattr(node, FATTR_ATIME, FATTR_MTIME) {
                ($0.atime, $0.atimensec, $0.mtime, $0.mtimensec) = (100, 5, 200, 6)
            }
            #expect(both.atime == 100 && both.atimensec == 5 && both.mtime == 200 && both.mtimensec == 6)
            let now = UInt64(time(nil))
            let later = try fuse.setattr(node, FATTR_ATIME, FATTR_ATIME_NOW) { _ in }
            #expect(later.atime >= now - 1 && later.mtime == 200)
            let status = try fuse.lowerStatus("local")
            #expect(status.st_mtim.tv_sec == 200 && status.st_mtim.tv_nsec == 6)
        }
    }

    @Test("The modification time that a user gives an incomplete file stays when the file is filled")
    func keptTime() throws {
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let set = try fuse.setattr(node, FATTR_MTIME) { ($0.mtime, $0.mtimensec) = (777, 888) }
            #expect(set.mtime == 777 && set.mtimensec == 888)
            let opened = try fuse.open(node)
            _ = try fuse.read(node, opened.fh, 0..<FuseFixture.size)
            try fuse.close(node, opened.fh)
            try until("the record") { try fuse.record("file")?.state == .dual }
            #expect(try fuse.attributes(node).mtime == 777)
            let status = try fuse.lowerStatus("file")
            #expect(status.st_mtim.tv_sec == 777 && status.st_mtim.tv_nsec == 888)
        }
    }

    @Test("An incomplete file that is cut off keeps what is left of the remote's, and zeros beyond the old end")
    func truncatesIncomplete() throws {
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            #expect(try fuse.truncate(node, to: 5000).size == 5000)
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            #expect(try fuse.truncate(node, to: 9000).size == 9000)
            let opened = try fuse.open(node)
            let zeros = [UInt8](repeating: 0, count: 4000)
            #expect(try fuse.read(node, opened.fh, 0..<20_000) == Pattern.bytes(0..<5000) + zeros)
            try fuse.close(node, opened.fh)
            #expect(fuse.remote.log.reads.allSatisfy { $0.upperBound <= 5000 })
            try until("the record") { try fuse.record("file")?.state == .dual }
            #expect(try fuse.lowerBytes("file") == Pattern.bytes(0..<5000) + zeros)
        }
    }

    @Test("An incomplete file that grows keeps the remote's content, and has zeros behind it")
    func growsIncomplete() throws {
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            #expect(try fuse.truncate(node, to: FuseFixture.size + 100).size == UInt64(FuseFixture.size + 100))
            #expect(fuse.remote.log.reads.isEmpty)
            let opened = try fuse.open(node)
            let end = try fuse.read(node, opened.fh, FuseFixture.size - 10..<FuseFixture.size + 200)
            let kept = Pattern.bytes(FuseFixture.size - 10..<FuseFixture.size)
            #expect(end == kept + [UInt8](repeating: 0, count: 100))
            try fuse.close(node, opened.fh)
        }
    }

    @Test("A complete file that is cut off becomes dirty first")
    func truncatesComplete() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            try fuse.fill("file", node)
            #expect(try fuse.record("file")?.flags == [])
            #expect(try fuse.truncate(node, to: 10).size == 10)
            #expect(try fuse.record("file")?.flags.contains(.dirty) == true)
            #expect(try fuse.lowerBytes("file") == Pattern.bytes(0..<10))
            try fuse.makeLocal("local", [1, 2, 3])
            let local = try fuse.lookup("local").nodeid
            #expect(try fuse.truncate(local, to: 2).size == 2)
            #expect(try fuse.record("local") == nil)
            #expect(try fuse.call(FUSE_SETATTR, 1, bytes(of: Self.empty)).code == EISDIR)
        }
    }

    /// Cuts a file off.
    private static let empty: fuse_setattr_in = {
        var body = fuse_setattr_in()
        body.valid = UInt32(FATTR_SIZE)
        return body
    }()

    @Test("A change of size or owner takes setuid and setgid away where the kernel says so")
    func setIDs() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            func set(_ mode: UInt32) throws { _ = try fuse.setattr(node, FATTR_MODE) { $0.mode = mode } }
            func mode() throws -> mode_t { try fuse.lowerStatus("file").st_mode & 0o7777 }
            let kill = Int32(PASSHSM_FATTR_KILL_SUIDGID)
            try set(0o6755)
            #expect(try mode() == 0o6755)
            _ = try fuse.setattr(node, FATTR_SIZE) { $0.size = UInt64(FuseFixture.size) }
            #expect(try mode() == 0o6755, "a privileged caller's change keeps them")
            _ = try fuse.setattr(node, FATTR_SIZE, kill) { $0.size = 100 }
            #expect(try mode() == 0o755)
            try set(0o6755)
            _ = try fuse.setattr(node, FATTR_UID) { $0.uid = 99 }
            #expect(try mode() == 0o755)
            try set(0o6755)
            // chown(2) with -1 twice, and a write that takes them away.
            _ = try fuse.setattr(node, kill) { _ in }
            #expect(try mode() == 0o755)
            // Setgid without group execution is a mark for locks: members of the group keep it.
            try set(0o2644)
            _ = try fuse.setattr(node, kill) { _ in }
            #expect(try mode() == 0o2644)
            _ = try fuse.setattr(node, kill, as: .stranger) { _ in }
            #expect(try mode() == 0o644)
        }
    }

    @Test("A file that can be mapped for writing has attributes that the kernel may not keep")
    func mapped() throws {
        try withFuse { fuse throws in
            try fuse.makeLocal("local", [1, 2, 3])
            let node = try fuse.lookup("local").nodeid
            func timeout() throws -> UInt64 {
                try fuse.success(FUSE_GETATTR, node, bytes(of: fuse_getattr_in())).value(fuse_attr_out.self).attr_valid
            }
            #expect(try timeout() == 1)
            let opened = try fuse.open(node, O_RDWR)
            #expect(try timeout() == 0)
            #expect(fuse.kernel.invalidations == [.init(node: node, offset: -1, count: 0)])
            // A mapping outlives its handle.
            var writer: Descriptor? = try Descriptor.open(fuse.lower("local"), O_RDWR)
            #expect(writer != nil)
            try fuse.close(node, opened.fh)
            #expect(try timeout() == 0)
            fuse.fileSystem.sweep()
            #expect(try timeout() == 0)
            writer = nil
            try until("the look at the mapping") {
                fuse.fileSystem.sweep()
                return try timeout() == 1
            }
            #expect(fuse.kernel.invalidations.count == 2)
        }
    }

    @Test("STATFS is that of the lower file system")
    func statistics() throws {
        try withFuse { fuse throws in
            var lower = statvfs()
            #expect(statvfs(fuse.directory.path, &lower) == 0)
            let out = try fuse.success(FUSE_STATFS, 1).value(fuse_statfs_out.self).st
            #expect(out.blocks == UInt64(lower.f_blocks) && out.bsize == UInt32(lower.f_bsize))
            #expect(out.frsize == UInt32(lower.f_frsize) && out.files == UInt64(lower.f_files))
            #expect(out.namelen == 255 && out.bavail <= out.bfree)
        }
    }

    @Test("ACCESS is always granted: the kernel checks by itself")
    func access() throws {
        try withFuse { fuse throws in
            #expect(try fuse.call(FUSE_ACCESS, 1, bytes(of: fuse_access_in())).code == 0)
        }
    }
}
