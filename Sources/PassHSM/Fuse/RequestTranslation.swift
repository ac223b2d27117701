import CFuse
import Glibc

/// Turns a request into one that libfuse 3.14 understands, before libfuse sees it. Keeps the flags that libfuse would
/// not hand on.
///
/// TMPFILE has the body of CREATE, and the body of STATX begins like that of GETATTR. Each is turned into the other
/// opcode, with ``isOther`` among its flags.
enum RequestTranslation {
    /// Set in the flags of a CREATE that was TMPFILE, and of a GETATTR that was STATX.
    static let isOther: UInt32 = 1 << 31

    /// The capabilities that the kernel offers in the INIT `request`: `flags` and `flags2` of fuse_init_in.
    static func offer(_ request: UnsafeMutableRawBufferPointer) -> (low: UInt32, high: UInt32) {
        let flags = MemoryLayout<fuse_in_header>.size + 12
        func word(_ offset: Int) -> UInt32 {
            offset + 4 <= request.count ? request.loadUnaligned(fromByteOffset: offset, as: UInt32.self) : 0
        }
        return (word(flags), word(flags + 4))
    }

    /// Changes `request` in place. Returns its new size, and the flags that libfuse does not know: those of
    /// fuse_write_in, fuse_open_in, fuse_create_in and fuse_setxattr_in that are not a system call's.
    static func translate(
        _ request: UnsafeMutableRawBufferPointer, _ header: fuse_in_header, hasExtendedSetxattr: Bool
    ) -> (size: Int, flags: UInt32) {
        let body = MemoryLayout<fuse_in_header>.size
        func word(_ offset: Int) -> UInt32 {
            guard body + offset + 4 <= request.count else { return 0 }
            return request.loadUnaligned(fromByteOffset: body + offset, as: UInt32.self)
        }
        func become(_ opcode: fuse_opcode) {
            var header = header
            header.opcode = opcode.rawValue
            request.storeBytes(of: header, as: fuse_in_header.self)
        }
        switch header.opcode {
        case FUSE_WRITE.rawValue: return (request.count, word(20))
        case FUSE_OPEN.rawValue: return (request.count, word(4))
        case FUSE_CREATE.rawValue: return (request.count, word(12))
        case UInt32(PASSHSM_FUSE_TMPFILE):
            become(FUSE_CREATE)
            return (request.count, isOther)
        case UInt32(PASSHSM_FUSE_STATX):
            become(FUSE_GETATTR)
            return (request.count, isOther)
        case FUSE_SETXATTR.rawValue where hasExtendedSetxattr:
            // The longer form has two more words before the name.
            let flags = word(8)
            guard request.count > body + 16, let base = request.baseAddress else { return (request.count, 0) }
            memmove(base + body + 8, base + body + 16, request.count - body - 16)
            var header = header
            header.len -= 8
            request.storeBytes(of: header, as: fuse_in_header.self)
            return (request.count - 8, flags)
        default: return (request.count, 0)
        }
    }
}
