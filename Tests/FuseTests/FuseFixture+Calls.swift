import CFuse
import CLinux
import Glibc
import HSMFuseDoor
import HSMStore
import HSMSystem
import TestSupport

@testable import HSMFuse

/// The requests that tests make most, in the kernel's layouts. Each throws the errno of a refusal.
extension FuseFixture {
    /// The answer to a request that is not refused.
    @discardableResult
    func success(
        _ opcode: fuse_opcode, _ node: UInt64, _ body: [UInt8] = [], as caller: Caller = .test
    ) throws -> ScriptedKernel.Answer {
        let answer = try call(opcode, node, body, as: caller)
        if answer.code != 0 { throw Errno(rawValue: answer.code) }
        return answer
    }

    // MARK: Names

    func mkdir(
        _ name: String, in parent: UInt64 = 1, mode: UInt32 = 0o755, umask: UInt32 = 0, as caller: Caller = .test
    ) throws -> fuse_entry_out {
        let body = bytes(of: fuse_mkdir_in(mode: mode, umask: umask)) + text(name)
        return try success(FUSE_MKDIR, parent, body, as: caller).value(fuse_entry_out.self)
    }

    func unlink(_ name: String, in parent: UInt64 = 1) throws { try success(FUSE_UNLINK, parent, text(name)) }

    func rename(
        _ name: String, in parent: UInt64 = 1, to newName: String, under newParent: UInt64 = 1, flags: UInt32 = 0
    ) throws {
        let body = bytes(of: fuse_rename2_in(newdir: newParent, flags: flags, padding: 0)) + text(name, newName)
        try success(FUSE_RENAME2, parent, body)
    }

    /// Makes a file and opens it.
    func create(
        _ name: String, in parent: UInt64 = 1, _ flags: Int32 = O_RDWR, mode: UInt32 = 0o644, umask: UInt32 = 0,
        as caller: Caller = .test
    ) throws -> passhsm_create_out {
        let flags = UInt32(bitPattern: flags | O_CREAT)
        let body = bytes(of: fuse_create_in(flags: flags, mode: mode, umask: umask, open_flags: 0)) + text(name)
        return try success(FUSE_CREATE, parent, body, as: caller).value(passhsm_create_out.self)
    }

    /// A file of the lower directory without a record.
    func makeLocal(_ name: String, _ content: [UInt8]) throws {
        try Descriptor.open(lower(name), O_RDWR | O_CREAT | O_TRUNC, mode: 0o644).put(content, at: 0)
    }

    func forget(_ node: UInt64, _ count: UInt64 = 1) {
        _ = send(FUSE_FORGET, node, bytes(of: fuse_forget_in(nlookup: count)))
    }

    // MARK: Attributes

    func setattr(
        _ node: UInt64, _ valid: Int32..., as caller: Caller = .test, _ change: (inout fuse_setattr_in) -> Void
    ) throws -> fuse_attr {
        var body = fuse_setattr_in()
        body.valid = valid.reduce(0) { $0 | UInt32($1) }
        change(&body)
        return try success(FUSE_SETATTR, node, bytes(of: body), as: caller).value(fuse_attr_out.self).attr
    }

    func truncate(_ node: UInt64, to size: Int) throws -> fuse_attr {
        try setattr(node, FATTR_SIZE) { $0.size = UInt64(size) }
    }

    func lowerStatus(_ name: String) throws -> stat {
        try Descriptor.open(lower(name), PASSHSM_O_PATH | O_NOFOLLOW).stat()
    }

    func lowerBytes(_ name: String, _ range: Range<Int> = 0..<1 << 20) throws -> [UInt8] {
        try Descriptor.open(lower(name), O_RDONLY).bytes(range)
    }

    // MARK: Content

    /// Which granules of an incomplete file that is in use are present.
    func present(_ node: UInt64) -> [Range<Int>] {
        fileSystem.inodes.find(node)?.content?.fill.present.runs() ?? []
    }

    /// Fills a file through an open, so that it is recorded as complete.
    func fill(_ name: String, _ node: UInt64) throws {
        let opened = try open(node)
        if opened.open_flags & PASSHSM_FOPEN_PASSTHROUGH == 0 { _ = try read(node, opened.fh, 0..<Self.size) }
        try close(node, opened.fh)
        try until("the record of \(name)") { try record(name)?.state == .dual }
        try until("the end of the use") { fileSystem.inodes.find(node)?.content == nil }
        // The fill's own descriptor, which writes, is closed a moment later.
        let reader = try Descriptor.open(lower(name), O_RDONLY)
        try until("the close") { !store.isOpenForWriting(reader) }
    }

    func fallocate(_ node: UInt64, _ handle: UInt64, mode: Int32, _ range: Range<Int>) throws {
        let body = fuse_fallocate_in(
            fh: handle, offset: UInt64(range.lowerBound), length: UInt64(range.count), mode: UInt32(mode), padding: 0)
        try success(FUSE_FALLOCATE, node, bytes(of: body))
    }

    func seek(_ node: UInt64, _ handle: UInt64, _ offset: Int, _ whence: Int32) throws -> Int {
        let body = fuse_lseek_in(
            fh: handle, offset: UInt64(bitPattern: Int64(offset)), whence: UInt32(whence), padding: 0)
        return Int(try success(FUSE_LSEEK, node, bytes(of: body)).value(fuse_lseek_out.self).offset)
    }

    /// COPY_FILE_RANGE between open files.
    func copy(
        _ node: UInt64, _ source: UInt64, at sourceOffset: Int, to target: (node: UInt64, fh: UInt64), at offset: Int,
        count: Int
    ) throws -> Int {
        let body = fuse_copy_file_range_in(
            fh_in: source, off_in: UInt64(sourceOffset), nodeid_out: target.node, fh_out: target.fh,
            off_out: UInt64(offset), len: UInt64(count), flags: 0)
        return Int(try success(FUSE_COPY_FILE_RANGE, node, bytes(of: body)).value(fuse_write_out.self).size)
    }

    func fsync(_ node: UInt64, _ handle: UInt64, dataOnly: Bool = false) throws {
        try success(
            FUSE_FSYNC, node, bytes(of: fuse_fsync_in(fh: handle, fsync_flags: dataOnly ? 1 : 0, padding: 0)))
    }

    // MARK: Locks

    /// The body of flock(2)'s SETLK or SETLKW.
    func lockBody(_ handle: UInt64, _ type: Int32) -> [UInt8] {
        var body = fuse_lk_in()
        (body.fh, body.lk_flags, body.lk.type) = (handle, UInt32(FUSE_LK_FLOCK), UInt32(type))
        return bytes(of: body)
    }

    // MARK: Directories

    struct Listed: Equatable {
        let name: String
        let offset: UInt64
        let type: UInt32
        /// Of READDIRPLUS.
        var node: UInt64 = 0
    }

    func opendir(_ node: UInt64 = 1) throws -> passhsm_open_out {
        try success(FUSE_OPENDIR, node, bytes(of: fuse_open_in())).value(passhsm_open_out.self)
    }

    /// One READDIR or READDIRPLUS.
    func readdir(
        _ node: UInt64 = 1, _ handle: UInt64, offset: UInt64 = 0, size: Int = 4096, plus: Bool = false
    ) throws -> [Listed] {
        var body = fuse_read_in()
        (body.fh, body.offset, body.size) = (handle, offset, UInt32(size))
        let answer = try success(plus ? FUSE_READDIRPLUS : FUSE_READDIR, node, bytes(of: body))
        var (result, at) = ([Listed](), 0)
        while at < answer.payload.count {
            var node: UInt64 = 0
            if plus {
                node = try answer.value(fuse_entry_out.self, at: at).nodeid
                at += MemoryLayout<fuse_entry_out>.size
            }
            // struct fuse_dirent: inode, offset, the name's length, type, name.
            let (offset, type) = (try answer.value(UInt64.self, at: at + 8), try answer.value(UInt32.self, at: at + 20))
            let (start, length) = (at + 24, Int(try answer.value(UInt32.self, at: at + 16)))
            let name = String(decoding: answer.payload[start..<start + length], as: UTF8.self)
            result.append(Listed(name: name, offset: offset, type: type, node: node))
            at = (start + length + 7) & ~7
        }
        return result
    }

    /// The whole listing, request after request.
    func list(
        _ node: UInt64 = 1, _ handle: UInt64, size: Int = 4096, plus: Bool = false, _ between: () throws -> Void = {}
    ) throws -> [Listed] {
        var (all, offset) = ([Listed](), UInt64(0))
        while true {
            let part = try readdir(node, handle, offset: offset, size: size, plus: plus)
            guard let last = part.last else { return all }
            all += part
            offset = last.offset
            try between()
        }
    }
}

extension Caller {
    /// Another user, whose thread is not known.
    static var stranger: Caller { Caller(user: 4321, group: 8765, thread: 0) }
}
