import CFuse
import CLinux
import Glibc
import HSMFuseDoor
import HSMStore
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct ExtendedAttributeTests {
    private func set(
        _ fuse: FuseFixture, _ node: UInt64, _ name: String, _ value: [UInt8], flags: UInt32 = 0, own: UInt32 = 0
    ) throws -> Int32 {
        let head = fuse_setxattr_in(size: UInt32(value.count), flags: flags, setxattr_flags: own, padding: 0)
        return try fuse.call(FUSE_SETXATTR, node, bytes(of: head) + text(name) + value).code
    }

    private func get(
        _ fuse: FuseFixture, _ node: UInt64, _ name: String, size: UInt32 = 1000
    ) throws -> ScriptedKernel.Answer {
        try fuse.call(FUSE_GETXATTR, node, bytes(of: fuse_getxattr_in(size: size, padding: 0)) + text(name))
    }

    private func list(
        _ fuse: FuseFixture, _ node: UInt64, size: UInt32 = 1000, as caller: Caller = .test
    ) throws -> ScriptedKernel.Answer {
        try fuse.call(FUSE_LISTXATTR, node, bytes(of: fuse_getxattr_in(size: size, padding: 0)), as: caller)
    }

    private func lower(_ fuse: FuseFixture, _ name: String, _ attribute: String) throws -> [UInt8] {
        try ExtendedAttributes.value(attribute, of: fuse.lower(name))
    }

    @Test("An attribute is set on the lower file, read, listed and removed")
    func life() throws {
        try withFuse { fuse throws in
            for (node, name) in [(1, ""), (try fuse.lookup("file").nodeid, "file")] as [(UInt64, String)] {
                #expect(try set(fuse, node, "user.colour", [1, 0, 2]) == 0)
                #expect(try lower(fuse, name, "user.colour") == [1, 0, 2])
                #expect(try get(fuse, node, "user.colour").payload == [1, 0, 2])
                #expect(try get(fuse, node, "user.colour", size: 0).value(fuse_getxattr_out.self).size == 3)
                #expect(try get(fuse, node, "user.colour", size: 2).code == ERANGE)
                #expect(try list(fuse, node).payload == text("user.colour"))
                #expect(try list(fuse, node, size: 0).value(fuse_getxattr_out.self).size == 12)
                #expect(try list(fuse, node, size: 11).code == ERANGE)
                #expect(try fuse.call(FUSE_REMOVEXATTR, node, text("user.colour")).code == 0)
                #expect(try get(fuse, node, "user.colour").code == ENODATA)
                #expect(try fuse.call(FUSE_REMOVEXATTR, node, text("user.colour")).code == ENODATA)
                #expect(throws: Errno(rawValue: ENODATA)) { try lower(fuse, name, "user.colour") }
            }
            #expect(fuse.remote.log.reads.isEmpty)
        }
    }

    @Test("The flags of setxattr(2) hold")
    func flags() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let (create, replace): (UInt32, UInt32) = (1, 2)
            #expect(try set(fuse, node, "user.x", [1], flags: replace) == ENODATA)
            #expect(try set(fuse, node, "user.x", [1], flags: create) == 0)
            #expect(try set(fuse, node, "user.x", [2], flags: create) == EEXIST)
            #expect(try set(fuse, node, "user.x", [], flags: replace) == 0)
            #expect(try lower(fuse, "file", "user.x") == [])
            #expect(try set(fuse, node, "nonsense", [1]) == EOPNOTSUPP)
        }
    }

    @Test("The record can be neither seen nor changed", arguments: Store.attributes)
    func record(name: String) throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let before = try fuse.record("file")
            #expect(try set(fuse, node, name, [1]) == EPERM)
            #expect(try get(fuse, node, name).code == ENODATA)
            #expect(try fuse.call(FUSE_REMOVEXATTR, node, text(name)).code == ENODATA)
            #expect(try !String(decoding: list(fuse, node).payload, as: UTF8.self).contains("passhsm"))
            #expect(try before != nil && fuse.record("file") == before)
        }
    }

    @Test("Attributes of the namespace trusted are listed to administrators only")
    func trusted() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            #expect(try set(fuse, node, "trusted.secret", [1]) == 0)
            #expect(try set(fuse, node, "user.open", [1]) == 0)
            let all = ExtendedAttributes.names(in: try list(fuse, node).payload)
            #expect(Set(all) == [text("trusted.secret"), text("user.open")])
            #expect(try list(fuse, node, as: .stranger).payload == text("user.open"))
        }
    }

    @Test("The state of a file is an attribute that cannot be changed")
    func state() throws {
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            func state() throws -> String {
                String(decoding: try get(fuse, node, "passhsm.state").payload, as: UTF8.self)
            }
            #expect(try state().contains("offline"))
            #expect(try set(fuse, node, "passhsm.state", [1]) == EPERM)
            let opened = try fuse.open(node)
            _ = try fuse.read(node, opened.fh, 0..<100)
            #expect(try !state().isEmpty)
            _ = try fuse.read(node, opened.fh, 0..<FuseFixture.size)
            try fuse.close(node, opened.fh)
            try until("the state") { try state().contains("dual") }
            #expect(try get(fuse, node, "passhsm.state", size: 2).code == ERANGE)
            #expect(try get(fuse, 1, "passhsm.state").payload == Array("nil".utf8))
        }
    }

    @Test("An access control list of another group's member takes setgid away")
    func accessControlList() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            _ = try fuse.setattr(node, FATTR_MODE) { $0.mode = 0o2755 }
            #expect(try set(fuse, node, "user.x", [1], own: 0) == 0)
            #expect(try fuse.lowerStatus("file").st_mode & 0o7777 == 0o2755)
            #expect(try set(fuse, node, "user.x", [1], own: UInt32(FUSE_SETXATTR_ACL_KILL_SGID)) == 0)
            #expect(try fuse.lowerStatus("file").st_mode & 0o7777 == 0o755)
        }
    }

    @Test("A kernel without the longer form sends its attributes in the shorter one")
    func shortForm() throws {
        try withFuse { fuse throws in
            var old = FuseFixture.offer
            (old.minor, old.flags, old.flags2) = (31, UInt32(FUSE_ASYNC_READ), 0)
            _ = try fuse.initialize(old)
            let node = try fuse.lookup("file").nodeid
            let head = bytes(of: UInt32(2)) + bytes(of: UInt32(0))
            #expect(try fuse.call(FUSE_SETXATTR, node, head + text("user.x") + [8, 9]).code == 0)
            #expect(try lower(fuse, "file", "user.x") == [8, 9])
        }
    }

    // MARK: IOCTL

    private func ioctl(
        _ fuse: FuseFixture, _ node: UInt64, _ command: UInt32, _ input: [UInt8] = [], size: UInt32 = 0,
        as caller: Caller = .test
    ) throws -> ScriptedKernel.Answer {
        var body = fuse_ioctl_in()
        (body.cmd, body.in_size, body.out_size) = (command, UInt32(input.count), size)
        return try fuse.call(FUSE_IOCTL, node, bytes(of: body) + input, as: caller)
    }

    @Test("The inode flags are read and set, and the kernel asks for the attributes again")
    func inodeFlags() throws {
        try withFuse { fuse throws in
            let (noDump, journal): (UInt32, UInt32) = (0x40, PASSHSM_FS_JOURNAL_DATA_FL)
            let node = try fuse.lookup("file").nodeid
            func flags(_ node: UInt64) throws -> UInt32 {
                let answer = try ioctl(fuse, node, PASSHSM_FS_IOC_GETFLAGS, size: 8)
                return try answer.value(UInt32.self, at: MemoryLayout<fuse_ioctl_out>.size)
            }
            let before = try flags(node)
            let new = bytes(of: UInt64(before | noDump))
            #expect(try ioctl(fuse, node, PASSHSM_FS_IOC_SETFLAGS, new).code == 0)
            #expect(try flags(node) == before | noDump)
            #expect(fuse.kernel.invalidations == [.init(node: node, offset: -1, count: 0)])
            var lower: UInt64 = 0
            try withUnsafeMutableBytes(of: &lower) {
                try Descriptor.open(fuse.lower("file"), O_RDONLY).ioctl(PASSHSM_FS_IOC_GETFLAGS, $0)
            }
            #expect(UInt32(truncatingIfNeeded: lower) & noDump != 0)
            // The journaling of a file's content needs a capability of the caller's.
            let journaled = bytes(of: UInt64(before | journal))
            #expect(try ioctl(fuse, node, PASSHSM_FS_IOC_SETFLAGS, journaled, as: .stranger).code == EPERM)
            #expect(try ioctl(fuse, node, PASSHSM_FS_IOC_SETFLAGS, bytes(of: UInt64(before)), as: .stranger).code == 0)
            #expect(try flags(1) & 0x10 == 0)
            #expect(try ioctl(fuse, node, PASSHSM_FS_IOC_FSGETXATTR, size: 28).payload.count == 16 + 28)
        }
    }

    @Test("Other commands, and arguments of other sizes, are ENOTTY")
    func otherCommands() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            #expect(try ioctl(fuse, node, 0x8008_7601, size: 8).code == ENOTTY)
            #expect(try ioctl(fuse, node, PASSHSM_FS_IOC_GETFLAGS, size: 65).code == ENOTTY)
            let long = [UInt8](repeating: 0, count: 65)
            #expect(try ioctl(fuse, node, PASSHSM_FS_IOC_SETFLAGS, long).code == ENOTTY)
            #expect(try ioctl(fuse, .max, PASSHSM_FS_IOC_GETFLAGS, size: 8).code == ESTALE)
        }
    }
}
