import CFuse
import Glibc
import HSMFuseDoor
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct HostileRequestTests {
    @Test("Every request that is cut off is answered with an error, and never twice", arguments: 1...60)
    func cutOff(opcode: UInt32) throws {
        // FORGET, BATCH_FORGET and INTERRUPT have no answer; INIT has its own test.
        if [2, 26, 36, 42].contains(opcode) { return }
        // GETATTR, READLINK, STATFS, OPENDIR, ACCESS, DESTROY and STATX need no body, LISTXATTR a short one.
        let bodiless: Set<UInt32> = [3, 5, 17, 23, 27, 34, 38, 52]
        try withFuse { fuse throws in
            for count in [0, 1, 7, 15] where !(bodiless.contains(opcode)) {
                let answer = try fuse.call(fuse_opcode(opcode), 1, [UInt8](repeating: 0xff, count: count))
                #expect(answer.code != 0, "\(opcode) with \(count) bytes")
            }
        }
    }

    @Test("Requests without an answer are survived in any form")
    func unanswered() throws {
        try withFuse { fuse throws in
            for opcode in [FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT] {
                for body in [[], [1], [UInt8](repeating: 0xff, count: 8), [UInt8](repeating: 0xff, count: 40)] {
                    let unique = fuse.send(opcode, 77, body)
                    #expect(fuse.kernel.answer(to: unique) == nil)
                }
            }
            _ = try fuse.lookup("file")
        }
    }

    @Test("Names without an end, sizes beyond the request and impossible offsets are refused")
    func numbers() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let opened = try fuse.open(node, O_RDWR)
            #expect(try fuse.call(FUSE_LOOKUP, 1, Array("endless".utf8)).code == EIO)
            var write = fuse_write_in()
            (write.fh, write.size) = (opened.fh, 1 << 30)
            #expect(try fuse.call(FUSE_WRITE, node, bytes(of: write) + [1]).code == EIO)
            (write.offset, write.size) = (1 << 63, 1)
            #expect(try fuse.call(FUSE_WRITE, node, bytes(of: write) + [1]).code == EINVAL)
            var set = fuse_setattr_in()
            (set.valid, set.size) = (UInt32(FATTR_SIZE), .max)
            #expect(try fuse.call(FUSE_SETATTR, node, bytes(of: set)).code == EINVAL)
            var ioctl = fuse_ioctl_in()
            ioctl.in_size = .max
            #expect(try fuse.call(FUSE_IOCTL, node, bytes(of: ioctl)).code == EIO)
            try fuse.close(node, opened.fh)
        }
    }

    @Test("Unknown requests are ENOSYS, and so are POSIX locks")
    func unknown() throws {
        try withFuse { fuse throws in
            #expect(try fuse.call(fuse_opcode(4095), 1, [UInt8](repeating: 0, count: 64)).code == ENOSYS)
            #expect(try fuse.call(FUSE_SETLK, 1, bytes(of: fuse_lk_in())).code == ENOSYS)
        }
    }

    @Test("Node ids that were never given out are ESTALE")
    func nodes() throws {
        try withFuse { fuse throws in
            for node: UInt64 in [0, .max] {
                let code = try fuse.call(FUSE_GETATTR, node, bytes(of: fuse_getattr_in())).code
                #expect(code == ESTALE, "\(node)")
            }
        }
    }
}
